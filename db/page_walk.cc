// SPDX-License-Identifier: Apache-2.0
#include "db/page_walk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

namespace fkdb {
namespace {

// LMDB 0.9's layout on 64-bit little-endian machines, as its files show it.
constexpr uint32_t kLmdbMagic = 0xBEEFC0DE;
constexpr uint32_t kDataVersion = 1;
constexpr uint64_t kNoPage = ~uint64_t{0};
constexpr uint16_t kBranchPage = 0x01, kLeafPage = 0x02, kMetaPage = 0x08;
constexpr uint16_t kBigData = 0x01, kSubDatabase = 0x02;
constexpr size_t kPageHeader = 16, kNodeHeader = 8;
constexpr int kMaxDepth = 32;

struct PageHeader {
  uint64_t number;
  uint16_t pad;
  uint16_t flags;
  uint16_t lower;  // end of the node offsets
  uint16_t upper;  // begin of the nodes
};
static_assert(sizeof(PageHeader) == kPageHeader);

struct TreeInfo {
  uint32_t pad;  // in the free database of a meta page: the page size
  uint16_t flags;
  uint16_t depth;
  uint64_t branch_pages;
  uint64_t leaf_pages;
  uint64_t overflow_pages;
  uint64_t entries;
  uint64_t root;
};
static_assert(sizeof(TreeInfo) == 48);

constexpr uint64_t kMaxMapBytes = uint64_t{1} << 46;

struct MetaBody {
  uint32_t magic;
  uint32_t version;
  uint64_t address;
  uint64_t map_size;
  TreeInfo free_tree;
  TreeInfo main_tree;
  uint64_t last_page;
  uint64_t transaction;
};
static_assert(sizeof(MetaBody) == 136);

template <class T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

class File {
 public:
  static Result<File> Open(const std::filesystem::path& path) {
    File file;
    file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file.fd_ < 0) {
      return Fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIoError,
                  fmt::format("cannot open: {}", std::strerror(errno)));
    }
    struct stat info;
    if (::fstat(file.fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
      return Fail(ErrorCode::kIoError, "not a regular file");
    }
    file.size_ = static_cast<uint64_t>(info.st_size);
    return file;
  }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }

  uint64_t size() const { return size_; }

  Result<void> Read(uint64_t offset, size_t size, void* out) const {
    auto* to = static_cast<char*>(out);
    while (size > 0) {
      const ssize_t n = ::pread(fd_, to, size, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Fail(ErrorCode::kIoError, fmt::format("cannot read: {}", std::strerror(errno)));
      if (n == 0) return Fail(ErrorCode::kCorruption, fmt::format("the file ends at byte {}", offset));
      to += n;
      offset += static_cast<uint64_t>(n);
      size -= static_cast<size_t>(n);
    }
    return {};
  }

 private:
  File() = default;
  int fd_ = -1;
  uint64_t size_ = 0;
};

tl::unexpected<Error> Corrupt(std::string what) {
  return Fail(ErrorCode::kCorruption, "damaged LMDB file: " + std::move(what));
}

class Walker {
 public:
  Walker(const File& file, FileEnd end) : file_(file), end_(end) { layout_.file_bytes = file.size(); }

  Result<FileLayout> Run() {
    FKDB_ASSIGN(const MetaBody meta, ReadMeta());
    claimed_.assign(last_page_ + 1, false);
    claimed_[0] = claimed_[1] = true;
    layout_.used_pages = last_page_ + 1;

    free_database_ = true;
    std::vector<StoredValue> free_lists;
    FKDB_TRY(WalkTree(meta.free_tree, "free list", &free_lists));
    free_database_ = false;
    main_database_ = true;
    std::vector<StoredValue> names;
    FKDB_TRY(WalkTree(meta.main_tree, "main", &names));
    main_database_ = false;
    for (const StoredValue& name : names) {
      TreeInfo tree;
      FKDB_TRY(file_.Read(name.offset, sizeof tree, &tree));
      FKDB_TRY(WalkTree(tree, name.key, &layout_.databases[name.key]));
    }
    return std::move(layout_);
  }

 private:
  // Both meta pages must be sound; the one of the later transaction holds.
  Result<MetaBody> ReadMeta() {
    FKDB_ASSIGN(const MetaBody first, ReadMetaAt(0, 0));
    const uint64_t page = first.free_tree.pad;
    if (!std::has_single_bit(page) || page < 4096 || page > 65536) {
      return Corrupt(fmt::format("pages of {} bytes", page));
    }
    page_bytes_ = page;
    layout_.page_bytes = page;
    FKDB_ASSIGN(const MetaBody second, ReadMetaAt(page, 1));
    if (second.free_tree.pad != page) return Corrupt("its two meta pages differ in page size");
    const MetaBody& meta = first.transaction < second.transaction ? second : first;
    last_page_ = meta.last_page;
    const uint64_t pages = file_.size() / page;
    const bool whole = file_.size() % page == 0 && last_page_ + 1 == pages;
    if (last_page_ < 1 || last_page_ >= pages || (end_ == FileEnd::kAtLastPage && !whole)) {
      return Corrupt(fmt::format("expected {} bytes ({} pages of {}), got {}: truncated or not copied whole",
                                 (last_page_ + 1) * page, last_page_ + 1, page, file_.size()));
    }
    return meta;
  }

  Result<MetaBody> ReadMetaAt(uint64_t offset, uint64_t number) {
    if (file_.size() < offset + kPageHeader + sizeof(MetaBody)) {
      return Corrupt(fmt::format("{} bytes are too few for an LMDB file", file_.size()));
    }
    std::byte bytes[kPageHeader + sizeof(MetaBody)];
    FKDB_TRY(file_.Read(offset, sizeof bytes, bytes));
    const auto header = Load<PageHeader>(bytes);
    const auto meta = Load<MetaBody>(bytes + kPageHeader);
    if (meta.magic != kLmdbMagic) {
      return number == 0 ? Fail(ErrorCode::kCorruption, "not an LMDB file, so not a label set")
                         : Corrupt("its second meta page is broken");
    }
    // liblmdb maps as much as this says, whatever the file's size.
    if (meta.map_size > kMaxMapBytes) return Corrupt(fmt::format("a map of {} bytes", meta.map_size));
    if (meta.version != kDataVersion) {
      return Fail(ErrorCode::kUnsupported,
                  fmt::format("LMDB data version {} ({}); this fkdb reads version {}, which LMDB 0.9 writes",
                              meta.version, meta.version == 3 ? "LMDB 1.0" : "an unknown LMDB", kDataVersion));
    }
    if (header.number != number || !(header.flags & kMetaPage)) {
      return Corrupt(fmt::format("page {} is not a meta page", number));
    }
    return meta;
  }

  Result<void> Claim(uint64_t first, uint64_t count, const std::string& tree) {
    if (first < 2 || first > last_page_ || count > last_page_ + 1 - first) {
      return Corrupt(fmt::format("tree '{}' points to pages {} to {} of {}", tree, first, first + count - 1,
                                 last_page_ + 1));
    }
    for (uint64_t page = first; page < first + count; ++page) {
      if (claimed_[page]) return Corrupt(fmt::format("page {} is used twice", page));
      claimed_[page] = true;
    }
    return {};
  }

  Result<void> WalkTree(const TreeInfo& tree, const std::string& name, std::vector<StoredValue>* values) {
    // 0x08: integer keys, which only the free list has; its upper bits are the environment's flags.
    const int flags = free_database_ ? tree.flags & 0xff : tree.flags;
    if (flags != (free_database_ ? 0x08 : 0)) {
      return Corrupt(fmt::format("tree '{}' has flags {:#x}", name, tree.flags));
    }
    if (tree.root == kNoPage) {
      if (tree.entries != 0 || tree.depth != 0) return Corrupt(fmt::format("tree '{}' has no root", name));
      return {};
    }
    if (tree.depth < 1 || tree.depth > kMaxDepth) {
      return Corrupt(fmt::format("tree '{}' is {} levels deep", name, tree.depth));
    }
    branch_ = leaf_ = overflow_ = entries_ = 0;
    last_key_.reset();
    FKDB_TRY(WalkPage(tree.root, tree.depth, name, values));
    if (branch_ != tree.branch_pages || leaf_ != tree.leaf_pages || overflow_ != tree.overflow_pages ||
        entries_ != tree.entries) {
      return Corrupt(fmt::format("tree '{}' holds {} + {} + {} pages and {} entries, not {} + {} + {} and {}", name,
                                 branch_, leaf_, overflow_, entries_, tree.branch_pages, tree.leaf_pages,
                                 tree.overflow_pages, tree.entries));
    }
    layout_.tree_pages += branch_ + leaf_;
    layout_.overflow_pages += overflow_;
    return {};
  }

  struct Node {
    uint16_t flags;
    std::string_view key;
    uint64_t low;  // branch: the child; leaf: the size of the data
    size_t data_at;
  };

  // The node at `slot`, checked to lie between the page's node offsets and its end.
  Result<Node> ReadNode(const std::vector<std::byte>& page, uint64_t number, size_t slot, bool branch) {
    const auto header = Load<PageHeader>(page.data());
    const size_t at = Load<uint16_t>(page.data() + kPageHeader + slot * 2);
    const auto broken = [&] { return Corrupt(fmt::format("node {} of page {} leaves it", slot, number)); };
    if (at < header.upper || at % 2 != 0 || at + kNodeHeader > page_bytes_) return broken();
    const auto lo = Load<uint16_t>(page.data() + at), hi = Load<uint16_t>(page.data() + at + 2);
    const auto flags = Load<uint16_t>(page.data() + at + 4), key_bytes = Load<uint16_t>(page.data() + at + 6);
    Node node;
    node.flags = branch ? 0 : flags;
    node.low = lo | uint64_t{hi} << 16 | (branch ? uint64_t{flags} << 32 : 0);
    node.data_at = at + kNodeHeader + key_bytes;
    const uint64_t inside = branch ? 0 : (flags & kBigData) ? 8 : node.low;
    if (node.data_at + inside > page_bytes_) return broken();
    node.key = {reinterpret_cast<const char*>(page.data()) + at + kNodeHeader, key_bytes};
    return node;
  }

  // Keys of the free list are integers; all others compare bytewise.
  bool Less(std::string_view a, std::string_view b) const {
    if (!free_database_) return a < b;
    return a.size() == 8 && b.size() == 8 &&
           Load<uint64_t>(reinterpret_cast<const std::byte*>(a.data())) <
               Load<uint64_t>(reinterpret_cast<const std::byte*>(b.data()));
  }

  Result<void> WalkPage(uint64_t number, int depth, const std::string& name, std::vector<StoredValue>* values) {
    FKDB_TRY(Claim(number, 1, name));
    std::vector<std::byte> page(page_bytes_);
    FKDB_TRY(file_.Read(number * page_bytes_, page.size(), page.data()));
    const auto header = Load<PageHeader>(page.data());
    const bool branch = depth > 1;
    if (header.number != number || header.flags != (branch ? kBranchPage : kLeafPage)) {
      return Corrupt(fmt::format("page {} is not a {} page", number, branch ? "branch" : "leaf"));
    }
    if (header.lower < kPageHeader || header.lower % 2 != 0 || header.upper < header.lower ||
        header.upper > page_bytes_) {
      return Corrupt(fmt::format("page {} has bounds {} and {}", number, header.lower, header.upper));
    }
    const size_t nodes = (header.lower - kPageHeader) / 2;
    if (nodes < (branch && !free_database_ ? 2u : 1u)) {
      return Corrupt(fmt::format("page {} has {} nodes", number, nodes));
    }
    (branch ? branch_ : leaf_) += 1;
    for (size_t slot = 0; slot < nodes; ++slot) {
      FKDB_ASSIGN(const Node node, ReadNode(page, number, slot, branch));
      if (!branch) {
        FKDB_TRY(VisitLeafNode(node, page, number, name, values));
        continue;
      }
      // A separator is above every key before it and not above any key after it.
      const auto disorder = [&] { return Corrupt(fmt::format("keys of page {} are out of order", number)); };
      if (slot > 0 && (!last_key_ || !Less(*last_key_, node.key))) return disorder();
      const std::string separator(node.key);
      expected_floor_ = slot > 0 ? std::optional(separator) : expected_floor_;
      FKDB_TRY(WalkPage(node.low, depth - 1, name, values));
    }
    return {};
  }

  Result<void> VisitLeafNode(const Node& node, const std::vector<std::byte>& page, uint64_t number,
                             const std::string& name, std::vector<StoredValue>* values) {
    if ((last_key_ && !Less(*last_key_, node.key)) || (expected_floor_ && Less(node.key, *expected_floor_))) {
      return Corrupt(fmt::format("keys of page {} are out of order", number));
    }
    expected_floor_.reset();
    last_key_ = std::string(node.key);
    ++entries_;
    const uint16_t expected = main_database_ ? kSubDatabase : (node.flags & kBigData);
    if (node.flags != expected || (main_database_ && node.low != sizeof(TreeInfo))) {
      return Corrupt(fmt::format("a node of page {} has flags {:#x}", number, node.flags));
    }
    uint64_t offset = number * page_bytes_ + node.data_at;
    if (node.flags & kBigData) {
      const auto first = Load<uint64_t>(page.data() + node.data_at);
      const uint64_t count = (node.low + kPageHeader + page_bytes_ - 1) / page_bytes_;
      FKDB_TRY(Claim(first, count, name));
      overflow_ += count;
      offset = first * page_bytes_ + kPageHeader;
    }
    values->push_back({*last_key_, offset, node.low});
    return {};
  }

  const File& file_;
  FileEnd end_;
  FileLayout layout_;
  uint64_t page_bytes_ = 0;
  uint64_t last_page_ = 0;
  std::vector<bool> claimed_;
  bool free_database_ = false;
  bool main_database_ = false;
  uint64_t branch_ = 0, leaf_ = 0, overflow_ = 0, entries_ = 0;
  std::optional<std::string> last_key_;
  std::optional<std::string> expected_floor_;  // the next leaf key must not be below it
};

}  // namespace

Result<FileLayout> WalkPages(const std::filesystem::path& path, FileEnd end) {
  FKDB_ASSIGN(const File file, File::Open(path));
  return Walker(file, end).Run();
}

Result<std::string> ReadAt(const std::filesystem::path& path, uint64_t offset, uint64_t size) {
  FKDB_ASSIGN(const File file, File::Open(path));
  if (offset > file.size() || size > file.size() - offset) {
    return Fail(ErrorCode::kCorruption, fmt::format("the file ends before byte {}", offset + size));
  }
  std::string bytes(size, '\0');
  FKDB_TRY(file.Read(offset, size, bytes.data()));
  return bytes;
}

}  // namespace fkdb
