// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/pickle.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "format/text.h"

namespace fkdb {
namespace {

using Type = PickleValue::Type;

// The names a label file may say. Everything else is refused.
enum Other : uint8_t { kMark, kReconstruct, kFrombuffer, kScalar, kNdarray, kDtype, kEncode, kRebuildTensor, kOrderedDict, kBytearray,
                       kStorageType, kStorage, kDtypeObject, kEmptyArray, kBytesType, kRebuildParameter };

struct KnownName {
  std::string_view module, name;
  Other what;
};
constexpr std::array kNames = {
    KnownName{"numpy.core.multiarray", "_reconstruct", kReconstruct}, KnownName{"numpy._core.multiarray", "_reconstruct", kReconstruct},
    KnownName{"numpy.core.multiarray", "scalar", kScalar},            KnownName{"numpy._core.multiarray", "scalar", kScalar},
    KnownName{"numpy.core.numeric", "_frombuffer", kFrombuffer},      KnownName{"numpy._core.numeric", "_frombuffer", kFrombuffer},
    KnownName{"numpy", "ndarray", kNdarray},                          KnownName{"numpy", "dtype", kDtype},
    KnownName{"_codecs", "encode", kEncode},                          KnownName{"torch._utils", "_rebuild_tensor_v2", kRebuildTensor},
    KnownName{"torch._utils", "_rebuild_tensor", kRebuildTensor},     KnownName{"collections", "OrderedDict", kOrderedDict},
    KnownName{"builtins", "bytearray", kBytearray},                   KnownName{"__builtin__", "bytearray", kBytearray},
    KnownName{"torch._utils", "_rebuild_parameter", kRebuildParameter},
    KnownName{"builtins", "bytes", kBytesType},                       KnownName{"__builtin__", "bytes", kBytesType},
};

struct Storage {
  std::string_view name;
  DType dtype;
};
constexpr std::array kStorages = {
    Storage{"FloatStorage", DType::kF32}, Storage{"DoubleStorage", DType::kF64},    Storage{"HalfStorage", DType::kF16},
    Storage{"LongStorage", DType::kI64},  Storage{"BFloat16Storage", DType::kBf16}, Storage{"IntStorage", DType::kI32},
    Storage{"ShortStorage", DType::kI16}, Storage{"CharStorage", DType::kI8},       Storage{"ByteStorage", DType::kU8},
    Storage{"BoolStorage", DType::kBool},
};

constexpr size_t kMaxDimensions = 16;

}  // namespace

std::string PickleValue::What() const {
  switch (type_) {
    case Type::kNone:
      return "None";
    case Type::kBool:
      return integer_ ? "True" : "False";
    case Type::kInt:
      return fmt::format("the number {}", integer_);
    case Type::kFloat:
      return fmt::format("the number {}", real_);
    case Type::kText:
      return fmt::format("the text '{}'", Printable(text_.substr(0, 40)));
    case Type::kBytes:
      return fmt::format("{} bytes", text_.size());
    case Type::kList:
      return fmt::format("a list of {}", items_.size());
    case Type::kTuple:
      return fmt::format("a tuple of {}", items_.size());
    case Type::kDict:
      return fmt::format("a dict of {}", items_.size() / 2);
    case Type::kArray:
      return fmt::format("an array {} {}", Name(array_->dtype()), array_->Shape());
    case Type::kOther:
      break;
  }
  return "something else";
}

const PickleValue* PickleValue::Find(std::string_view key) const {
  if (type_ != Type::kDict) return nullptr;
  for (size_t i = 0; i + 1 < items_.size(); i += 2) {
    if (items_[i]->type() == Type::kText && items_[i]->text() == key) return items_[i + 1];
  }
  return nullptr;
}

// Values are made once and then only read, but for lists, dicts and arrays that later instructions fill: `memo_`
// and the stack hold them as they are filled.
class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, const StorageOf& storage_of)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), storage_of_(storage_of) {}

  Result<Pickle> Run() {
    while (!done_) {
      at_ = next_;
      std::string_view code;
      FKDB_TRY(Take(1, &code));
      FKDB_TRY(Step(static_cast<uint8_t>(code[0])));
    }
    return std::move(pickle_);
  }

 private:
  using Value = PickleValue;

  // ---- messages
  tl::unexpected<Error> At(ErrorCode code, std::string_view what) const {
    return Fail(code, fmt::format("pickle: byte {}: {}", at_, what));
  }
  tl::unexpected<Error> Bad(std::string_view what) const { return At(ErrorCode::kCorruption, what); }

  // ---- input
  Result<void> Take(uint64_t n, std::string_view* out) {
    if (n > text_.size() - next_) return Bad("it is cut off");
    *out = text_.substr(next_, n);
    next_ += n;
    return {};
  }
  template <class T>
  Result<void> Number(T* out) {
    std::string_view bytes;
    FKDB_TRY(Take(sizeof(T), &bytes));
    std::memcpy(out, bytes.data(), sizeof(T));
    return {};
  }
  template <class Length>
  Result<void> Sized(std::string_view* out) {
    Length n;
    FKDB_TRY(Number(&n));
    return Take(n, out);
  }
  Result<void> Line(std::string_view* out) {
    const size_t end = text_.find('\n', next_);
    if (end == std::string_view::npos) return Bad("it is cut off");
    *out = text_.substr(next_, end - next_);
    next_ = end + 1;
    return {};
  }

  // ---- stack
  Value* New(Type type, uint8_t other = 0) {
    Value& value = pickle_.values_.emplace_back();
    value.type_ = type;
    value.other_ = other;
    return &value;
  }
  Value* Push(Type type, uint8_t other = 0) {
    stack_.push_back(New(type, other));
    return stack_.back();
  }
  Result<void> PushText(Type type, std::string_view text) {
    Push(type)->text_ = text;
    return {};
  }
  Result<void> PushInt(int64_t integer) {
    Push(Type::kInt)->integer_ = integer;
    return {};
  }
  static bool Is(const Value* value, Other what) { return value->type_ == Type::kOther && value->other_ == what; }

  Result<Value*> Pop() {
    if (stack_.empty() || Is(stack_.back(), kMark)) return Bad("the stack is empty");
    Value* top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Result<Value*> Top() {
    if (stack_.empty() || Is(stack_.back(), kMark)) return Bad("the stack is empty");
    return stack_.back();
  }
  Result<void> PopTo(size_t count, std::vector<const Value*>* out) {
    out->resize(count);
    for (size_t i = count; i-- > 0;) {
      FKDB_ASSIGN((*out)[i], Pop());
    }
    return {};
  }
  Result<void> PopToMark(std::vector<const Value*>* out) {
    size_t mark = stack_.size();
    while (mark > 0 && !Is(stack_[mark - 1], kMark)) --mark;
    if (mark == 0) return Bad("no mark on the stack");
    out->assign(stack_.begin() + static_cast<ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return {};
  }

  // ---- instructions
  Result<void> Step(uint8_t code);
  Result<void> PushTuple(size_t count) {
    std::vector<const Value*> items;
    FKDB_TRY(PopTo(count, &items));
    Push(Type::kTuple)->items_ = std::move(items);
    return {};
  }
  Result<void> Collect(Type type) {
    std::vector<const Value*> items;
    FKDB_TRY(PopToMark(&items));
    if (type == Type::kDict && items.size() % 2 != 0) return Bad("a dict with a key and no value");
    Push(type)->items_ = std::move(items);
    return {};
  }
  Result<void> Extend(Type type, std::vector<const Value*> items) {
    FKDB_ASSIGN(Value* const target, Top());
    if (target->type_ != type) return Bad(fmt::format("{} is no {}", target->What(), type == Type::kList ? "list" : "dict"));
    if (type == Type::kDict && items.size() % 2 != 0) return Bad("a dict with a key and no value");
    target->items_.insert(target->items_.end(), items.begin(), items.end());
    return {};
  }
  Result<void> Long(std::string_view bytes) {
    if (bytes.size() > 8) return At(ErrorCode::kUnsupported, "a whole number of more than 64 bits");
    uint64_t bits = !bytes.empty() && (bytes.back() & 0x80) ? UINT64_MAX : 0;
    std::memcpy(&bits, bytes.data(), bytes.size());
    return PushInt(static_cast<int64_t>(bits));
  }
  Result<void> Memoize(uint32_t key) {
    FKDB_ASSIGN(memo_[key], Top());
    return {};
  }
  Result<void> Recall(uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) return Bad(fmt::format("no memo {}", key));
    stack_.push_back(found->second);
    return {};
  }

  Result<void> Global(std::string_view module, std::string_view name) {
    for (const KnownName& known : kNames) {
      if (known.module == module && known.name == name) {
        Push(Type::kOther, known.what);
        return {};
      }
    }
    if (module == "torch") {
      for (const Storage& storage : kStorages) {
        if (storage.name != name) continue;
        Push(Type::kOther, kStorageType)->integer_ = static_cast<int64_t>(storage.dtype);
        return {};
      }
    }
    return At(ErrorCode::kUnsupported, fmt::format("name '{}.{}' is not one that label files need: refused, and nothing of it was run",
                                                   Printable(module), Printable(name)));
  }
  Result<void> PersistentId();
  Result<void> Reduce();
  Result<void> Build();

  Result<void> RebuildTensor(std::span<const Value* const> arguments);
  Result<void> Encode(std::span<const Value* const> arguments);
  // A tuple of whole numbers that are not negative.
  Result<std::vector<uint64_t>> Numbers(const Value* value) const {
    std::vector<uint64_t> numbers;
    if (!value->is_sequence() || value->items_.size() > kMaxDimensions) return Bad(fmt::format("{} where a shape belongs", value->What()));
    for (const Value* item : value->items_) {
      if (item->type_ != Type::kInt || item->integer_ < 0) return Bad(fmt::format("{} in a shape", item->What()));
      numbers.push_back(static_cast<uint64_t>(item->integer_));
    }
    return numbers;
  }
  Result<void> PushArray(Value* value, Result<Array> array) {
    if (!array) return Bad(array.error().message);
    value->type_ = Type::kArray;
    value->array_ = &pickle_.arrays_.emplace_back(std::move(*array));
    return {};
  }

  std::string_view text_;
  const StorageOf& storage_of_;
  size_t next_ = 0, at_ = 0;
  size_t encoded_ = 0;
  bool done_ = false;
  Pickle pickle_;
  std::vector<Value*> stack_;
  Value *none_ = nullptr, *no_items_ = nullptr, *truths_[2] = {};
  std::unordered_map<uint32_t, Value*> memo_;
};

Result<void> PickleMachine::PersistentId() {
  FKDB_ASSIGN(const Value* const id, Pop());
  const auto items = id->items();
  const bool good = id->type_ == Type::kTuple && items.size() == 5 && items[0]->text() == "storage" && Is(items[1], kStorageType) &&
                    items[2]->type_ == Type::kText && items[4]->type_ == Type::kInt;
  if (!good) return Bad(fmt::format("{} is no storage", id->What()));
  if (!storage_of_) return At(ErrorCode::kUnsupported, "a tensor outside a file of PyTorch's");
  Value* const storage = Push(Type::kOther, kStorage);
  storage->integer_ = items[1]->integer_;
  auto bytes = storage_of_(items[2]->text());
  if (!bytes) return At(bytes.error().code, bytes.error().message);
  storage->text_ = {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
  return {};
}

Result<void> PickleMachine::RebuildTensor(std::span<const Value* const> a) {
  if (a.size() < 4 || !Is(a[0], kStorage) || a[1]->type_ != Type::kInt || a[1]->integer_ < 0) return Bad("a tensor of something else");
  const DType dtype = static_cast<DType>(a[0]->integer_);
  const std::span bytes = std::as_bytes(std::span(a[0]->text_));
  FKDB_ASSIGN(std::vector<uint64_t> shape, Numbers(a[2]));
  FKDB_ASSIGN(std::vector<uint64_t> strides, Numbers(a[3]));
  const auto offset = static_cast<uint64_t>(a[1]->integer_);
  if (offset > bytes.size() / ItemSize(dtype)) return Bad("a tensor that begins behind its storage");
  Value* const tensor = Push(Type::kArray);
  return PushArray(tensor, Array::Make(dtype, std::move(shape), std::move(strides), bytes.subspan(offset * ItemSize(dtype))));
}

// How protocol 2 keeps bytes: as the text whose code points they are, in UTF-8.
Result<void> PickleMachine::Encode(std::span<const Value* const> a) {
  if (a.size() != 2 || a[0]->type_ != Type::kText || (a[1]->text_ != "latin1" && a[1]->text_ != "latin-1")) {
    return Bad("text that is encoded in some other way than latin1");
  }
  const std::string_view text = a[0]->text_;
  // Text is encoded once, where it stands; the same one again and again would fill the memory.
  if (text.size() > text_.size() - encoded_) return Bad("the same text is encoded again and again");
  encoded_ += text.size();
  std::string& bytes = pickle_.texts_.emplace_back(text.size(), '\0');
  // Half of a label's bytes take two: no branch could be foretold.
  const auto* from = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const end = from + text.size();
  char* to = bytes.data();
  uint32_t bad = 0;
  while (from + 1 < end) {
    const uint32_t c = from[0], next = from[1], two = c >> 7;
    bad |= two & (static_cast<uint32_t>((c & 0xfe) != 0xc2) | static_cast<uint32_t>((next & 0xc0) != 0x80));
    *to++ = static_cast<char>(c ^ ((c ^ ((c & 3) << 6 | (next & 0x3f))) & (0 - two)));
    from += 1 + two;
  }
  if (from < end) {
    bad |= *from >> 7;
    *to++ = static_cast<char>(*from);
  }
  if (bad) return Bad("text that is not latin1");
  bytes.resize(static_cast<size_t>(to - bytes.data()));
  return PushText(Type::kBytes, bytes);
}

Result<void> PickleMachine::Reduce() {
  FKDB_ASSIGN(const Value* const arguments, Pop());
  FKDB_ASSIGN(const Value* const function, Pop());
  if (arguments->type_ != Type::kTuple) return Bad("arguments that are no tuple");
  const auto a = arguments->items();
  if (function->type_ != Type::kOther) return Bad(fmt::format("{} is called", function->What()));
  switch (function->other_) {
    case kEncode:
      return Encode(a);
    case kRebuildTensor:
      return RebuildTensor(a);
    case kRebuildParameter: {
      if (a.empty() || a[0]->type_ != Type::kArray) return Bad("a parameter of something else");
      const Array* const array = a[0]->array_;
      Push(Type::kArray)->array_ = array;
      return {};
    }
    case kReconstruct:
      if (a.size() != 3 || !Is(a[0], kNdarray)) return Bad("an array of something else");
      Push(Type::kOther, kEmptyArray);
      return {};
    case kDtype: {
      if (a.empty() || a[0]->type_ != Type::kText) return Bad("a type without a name");
      std::string_view name = a[0]->text_;
      if (name.starts_with('>')) return At(ErrorCode::kUnsupported, "numbers in big-endian order: save them in little-endian");
      if (name.starts_with('<') || name.starts_with('|') || name.starts_with('=')) name.remove_prefix(1);
      auto dtype = ParseDType(name);
      if (!dtype) return At(dtype.error().code, dtype.error().message);
      Push(Type::kOther, kDtypeObject)->integer_ = static_cast<int64_t>(*dtype);
      return {};
    }
    case kScalar: {
      if (a.size() != 2 || !Is(a[0], kDtypeObject) || a[1]->type_ != Type::kBytes) return Bad("a number of something else");
      const DType dtype = static_cast<DType>(a[0]->integer_);
      FKDB_ASSIGN(const Array array, Array::Dense(dtype, {}, false, std::as_bytes(std::span(a[1]->text_))));
      if (IsFloat(dtype)) {
        Push(Type::kFloat)->real_ = array.Floats()[0];
        return {};
      }
      FKDB_ASSIGN(const std::vector<int64_t> number, array.Integers());
      Push(dtype == DType::kBool ? Type::kBool : Type::kInt)->integer_ = number[0];
      return {};
    }
    case kFrombuffer: {
      const bool good = a.size() == 4 && a[0]->type_ == Type::kBytes && Is(a[1], kDtypeObject) && a[3]->type_ == Type::kText;
      if (!good) return Bad("an array of something else");
      FKDB_ASSIGN(std::vector<uint64_t> shape, Numbers(a[2]));
      Value* const array = Push(Type::kArray);
      return PushArray(array, Array::Dense(static_cast<DType>(a[1]->integer_), std::move(shape), a[3]->text_ == "F",
                                           std::as_bytes(std::span(a[0]->text_))));
    }
    case kOrderedDict:
      if (!a.empty()) return Bad("an OrderedDict with arguments");
      Push(Type::kDict, kOrderedDict);
      return {};
    case kBytearray:
    case kBytesType:
      if (a.size() > 1 || (a.size() == 1 && a[0]->type_ != Type::kBytes)) return Bad("bytes of something else");
      return PushText(Type::kBytes, a.empty() ? "" : a[0]->text_);
    default:
      return Bad("something that cannot be called is called");
  }
}

Result<void> PickleMachine::Build() {
  FKDB_ASSIGN(const Value* const state, Pop());
  FKDB_ASSIGN(Value* const target, Top());
  const auto s = state->items();
  if (Is(target, kDtypeObject)) {
    if (state->type_ != Type::kTuple || s.size() < 2 || s[1]->type_ != Type::kText) return Bad("a type of no state");
    if (s[1]->text_ == ">") return At(ErrorCode::kUnsupported, "numbers in big-endian order: save them in little-endian");
    return {};
  }
  if (target->other_ == kOrderedDict && target->type_ == Type::kDict && state->type_ == Type::kDict) return {};  // a state dict's _metadata
  if (!Is(target, kEmptyArray)) return Bad(fmt::format("{} is given a state", target->What()));
  if (state->type_ != Type::kTuple || s.size() != 5 || !Is(s[2], kDtypeObject) || s[3]->type_ != Type::kBool) {
    return Bad("an array of no state");
  }
  if (s[4]->type_ != Type::kBytes) return At(ErrorCode::kUnsupported, fmt::format("an array of {}: expected bytes", s[4]->What()));
  FKDB_ASSIGN(std::vector<uint64_t> shape, Numbers(s[1]));
  return PushArray(target, Array::Dense(static_cast<DType>(s[2]->integer_), std::move(shape), s[3]->integer_ != 0,
                                        std::as_bytes(std::span(s[4]->text_))));
}

Result<void> PickleMachine::Step(uint8_t code) {
  std::string_view text;
  uint8_t byte = 0;
  uint32_t word = 0;
  switch (code) {
    case 0x80:  // PROTO
      FKDB_TRY(Number(&byte));
      if (byte < 2 || byte > 5) return At(ErrorCode::kUnsupported, fmt::format("protocol {}: expected 2 to 5", byte));
      return {};
    case 0x95: {  // FRAME: a hint
      uint64_t length;
      return Number(&length);
    }
    case '.': {  // STOP
      FKDB_ASSIGN(pickle_.root_, Pop());
      if (!stack_.empty()) return Bad("more than one value");
      done_ = true;
      return {};
    }
    case '(':
      Push(Type::kOther, kMark);
      return {};
    case '0': {
      FKDB_TRY(Pop());
      return {};
    }
    case 'N':  // one value for all of a kind: a byte must not make a hundred
      stack_.push_back(none_ ? none_ : none_ = New(Type::kNone));
      return {};
    case 0x88:
    case 0x89: {
      Value*& truth = truths_[code == 0x88];
      if (!truth) (truth = New(Type::kBool))->integer_ = code == 0x88;
      stack_.push_back(truth);
      return {};
    }
    case 'J': {
      int32_t integer = 0;
      FKDB_TRY(Number(&integer));
      return PushInt(integer);
    }
    case 'K':
      FKDB_TRY(Number(&byte));
      return PushInt(byte);
    case 'M': {
      uint16_t integer = 0;
      FKDB_TRY(Number(&integer));
      return PushInt(integer);
    }
    case 0x8a:
      FKDB_TRY(Sized<uint8_t>(&text));
      return Long(text);
    case 0x8b:
      FKDB_TRY(Sized<uint32_t>(&text));
      return Long(text);
    case 'G': {  // big-endian
      uint64_t bits = 0;
      FKDB_TRY(Number(&bits));
      Push(Type::kFloat)->real_ = std::bit_cast<double>(__builtin_bswap64(bits));
      return {};
    }
    case 'X':
      FKDB_TRY(Sized<uint32_t>(&text));
      return PushText(Type::kText, text);
    case 0x8c:
      FKDB_TRY(Sized<uint8_t>(&text));
      return PushText(Type::kText, text);
    case 0x8d:
      FKDB_TRY(Sized<uint64_t>(&text));
      return PushText(Type::kText, text);
    case 'T':  // text of Python 2
      FKDB_TRY(Sized<uint32_t>(&text));
      return PushText(Type::kBytes, text);
    case 'U':
      FKDB_TRY(Sized<uint8_t>(&text));
      return PushText(Type::kBytes, text);
    case 'B':
      FKDB_TRY(Sized<uint32_t>(&text));
      return PushText(Type::kBytes, text);
    case 'C':
      FKDB_TRY(Sized<uint8_t>(&text));
      return PushText(Type::kBytes, text);
    case 0x8e:
    case 0x96:  // BYTEARRAY8
      FKDB_TRY(Sized<uint64_t>(&text));
      return PushText(Type::kBytes, text);
    case ']':
      Push(Type::kList);
      return {};
    case ')':
      stack_.push_back(no_items_ ? no_items_ : no_items_ = New(Type::kTuple));
      return {};
    case '}':
      Push(Type::kDict);
      return {};
    case 'l':
      return Collect(Type::kList);
    case 't':
      return Collect(Type::kTuple);
    case 'd':
      return Collect(Type::kDict);
    case 0x85:
    case 0x86:
    case 0x87:
      return PushTuple(code - 0x84u);
    case 'a':
    case 's': {
      std::vector<const Value*> items;
      FKDB_TRY(PopTo(code == 'a' ? 1 : 2, &items));
      return Extend(code == 'a' ? Type::kList : Type::kDict, std::move(items));
    }
    case 'e':
    case 'u': {
      std::vector<const Value*> items;
      FKDB_TRY(PopToMark(&items));
      return Extend(code == 'e' ? Type::kList : Type::kDict, std::move(items));
    }
    case 'q':
      FKDB_TRY(Number(&byte));
      return Memoize(byte);
    case 'r':
      FKDB_TRY(Number(&word));
      return Memoize(word);
    case 0x94:
      return Memoize(static_cast<uint32_t>(memo_.size()));
    case 'h':
      FKDB_TRY(Number(&byte));
      return Recall(byte);
    case 'j':
      FKDB_TRY(Number(&word));
      return Recall(word);
    case 'c': {
      std::string_view name;
      FKDB_TRY(Line(&text));
      FKDB_TRY(Line(&name));
      return Global(text, name);
    }
    case 0x93: {
      FKDB_ASSIGN(const Value* const name, Pop());
      FKDB_ASSIGN(const Value* const module, Pop());
      if (module->type_ != Type::kText || name->type_ != Type::kText) return Bad("a name that is no text");
      return Global(module->text_, name->text_);
    }
    case 'Q':
      return PersistentId();
    case 'R':
      return Reduce();
    case 'b':
      return Build();
    default:
      return At(ErrorCode::kUnsupported, fmt::format("instruction 0x{:02x} is not one that label files need", code));
  }
}

Result<Pickle> Pickle::Read(std::span<const std::byte> bytes, const StorageOf& storage_of) {
  if (bytes.size() < 2 || bytes[0] != std::byte{0x80}) {
    return Fail(ErrorCode::kCorruption, "no pickle of protocol 2 to 5");
  }
  return PickleMachine(bytes, storage_of).Run();
}

}  // namespace fkdb
