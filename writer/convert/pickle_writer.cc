// SPDX-License-Identifier: Apache-2.0
#include "writer/convert/pickle_writer.h"

#include <cstring>

#include "format/half.h"

namespace fkdb {
namespace {

template <class T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string Encoded(DType dtype, std::span<const float> values) {
  std::string bytes;
  bytes.reserve(values.size() * ItemSize(dtype));
  for (const float value : values) {
    if (dtype == DType::kBool) {
      bytes.push_back(value != 0);
    } else if (dtype == DType::kI64) {
      Append(&bytes, static_cast<int64_t>(value));
    } else if (dtype == DType::kF16) {
      Append(&bytes, HalfFromFloat(value));
    } else {
      Append(&bytes, value);
    }
  }
  return bytes;
}

}  // namespace

PickleWriter::PickleWriter() : out_("\x80\x02") {}

// Values that come again could be said by number; nothing here is, but readers know it so.
void PickleWriter::Memoize() {
  if (memos_ < 256) {
    out_ += 'q';
    out_ += static_cast<char>(memos_++);
  } else {
    out_ += 'r';
    Append(&out_, memos_++);
  }
}

void PickleWriter::Global(const char* module_and_name) {
  out_ += 'c';
  out_ += module_and_name;
  Memoize();
}

void PickleWriter::Int(uint64_t value) {
  if (value < 256) {
    out_ += 'K';
    Append(&out_, static_cast<uint8_t>(value));
  } else if (value < 65536) {
    out_ += 'M';
    Append(&out_, static_cast<uint16_t>(value));
  } else {
    out_ += 'J';
    Append(&out_, static_cast<int32_t>(value));
  }
}

void PickleWriter::BeginList() {
  out_ += ']';
  Memoize();
  out_ += '(';
}

void PickleWriter::EndList() { out_ += 'e'; }

std::string PickleWriter::Finish() && {
  out_ += '.';
  return std::move(out_);
}

void PickleWriter::Add(DType dtype, const std::vector<uint64_t>& shape, std::span<const float> values) {
  const auto text = [&](std::string_view t) {
    out_ += 'X';
    Append(&out_, static_cast<uint32_t>(t.size()));
    out_ += t;
    Memoize();
  };
  const auto tuple = [&](char code) {
    out_ += code;
    Memoize();
  };
  // Protocol 2 has no bytes: they are text of the same code points, encoded when it is read.
  const auto bytes = [&](std::string_view raw) {
    Global("_codecs\nencode\n");
    std::string utf8;
    utf8.reserve(raw.size() + raw.size() / 2);
    for (const char c : raw) {
      if (const auto b = static_cast<uint8_t>(c); b < 0x80) {
        utf8 += c;
      } else {
        utf8 += static_cast<char>(0xc0 | b >> 6);
        utf8 += static_cast<char>(0x80 | (b & 0x3f));
      }
    }
    text(utf8);
    text("latin1");
    tuple('\x86');
    out_ += 'R';
    Memoize();
  };

  Global("numpy.core.multiarray\n_reconstruct\n");
  Global("numpy\nndarray\n");
  Int(0);
  tuple('\x85');
  bytes("b");
  tuple('\x87');
  out_ += 'R';
  Memoize();

  out_ += '(';
  Int(1);
  if (shape.size() > 3) out_ += '(';
  for (const uint64_t n : shape) Int(n);
  tuple(shape.size() == 1 ? '\x85' : shape.size() == 2 ? '\x86' : shape.size() == 3 ? '\x87' : 't');
  Global("numpy\ndtype\n");
  text(Name(dtype));
  out_ += "\x89\x88";
  tuple('\x87');
  out_ += 'R';
  Memoize();
  out_ += '(';
  Int(3);
  text(ItemSize(dtype) == 1 ? "|" : "<");
  out_ += "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK";
  out_ += '\0';
  tuple('t');
  out_ += 'b';
  out_ += '\x89';
  bytes(Encoded(dtype, values));
  tuple('t');
  out_ += 'b';
}

}  // namespace fkdb
