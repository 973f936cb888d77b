// SPDX-License-Identifier: Apache-2.0
#include "trainer/aoti_network.h"

#include <ATen/cpu/Utils.h>
#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <omp.h>
#include <sys/utsname.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace fkdb {
namespace {

// Where the code of the one model lies that aoti_compile_and_package packs.
constexpr std::string_view kFolder = "data/aotinductor/model/";
constexpr const char* kMakeOne = "expected a package made by torch._inductor.aoti_compile_and_package";
constexpr size_t kRank = 4;

// A dimension of the input that it was exported for.
struct Side {
  std::optional<int64_t> fixed;
  int64_t least = 0, most = std::numeric_limits<int64_t>::max();
};

// What a package says of itself.
struct Package {
  std::string device, platform, machine, isa;
  bool has_shape = false;  // the rest is known
  std::array<Side, kRank> sides;
  std::array<std::optional<int64_t>, kRank> strides;
  size_t rank = 0, inputs = 1;
  std::string type;  // of the input
};

// The generated source, which lies beside the code, holds a check of the input that is off unless asked for by an environment
// variable, and then says what is wrong on stderr. We read what it would check.
void ReadShape(const std::string& source, Package* package) {
  const size_t begin = source.find("static void check_input_0("), end = source.find("_check_aoti_runtime_check_inputs_env()", begin);
  if (end == std::string::npos) return;
  const std::string all = source.substr(begin, end - begin);
  while (all.find(fmt::format("static void check_input_{}(", package->inputs)) != std::string::npos) ++package->inputs;
  const std::string check = all.substr(0, all.find("static void check_input_1("));
  const auto each = [&](const char* pattern, const auto& use) {
    const std::regex regex(pattern);
    for (std::sregex_iterator i(check.begin(), check.end(), regex); i != std::sregex_iterator(); ++i) use((*i)[1].str(), (*i)[2].str());
  };
  const auto side = [&](const std::string& index) -> Side& {
    package->rank = std::max<size_t>(package->rank, std::stoul(index) + 1);
    return package->sides[std::min<size_t>(std::stoul(index), kRank - 1)];
  };
  each(R"(if \((\d+) != \w+_size\[(\d+)\]\))", [&](const auto& value, const auto& index) { side(index).fixed = std::stoll(value); });
  each(R"(if \(\w+_size\[(\d+)\] < (\d+)\))", [&](const auto& index, const auto& value) { side(index).least = std::stoll(value); });
  each(R"(if \(\w+_size\[(\d+)\] > (\d+)\))", [&](const auto& index, const auto& value) { side(index).most = std::stoll(value); });
  each(R"(if \((\d+) != \w+_stride\[(\d+)\]\))", [&](const auto& value, const auto& index) {
    side(index);
    package->strides[std::min<size_t>(std::stoul(index), kRank - 1)] = std::stoll(value);
  });
  each(R"(_expected_dtype = aoti_torch_dtype_(\w+)(\(\)))", [&](const auto& type, const auto&) { package->type = type; });
  package->has_shape = package->rank > 0;
}

// Whether what lies there in a file is a shared library. Torch's loader would unpack anything else to /tmp, fail, and leave it there.
bool IsLibrary(const std::filesystem::path& path, size_t offset) {
  std::array<char, 4> begin = {};
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset)).read(begin.data(), begin.size());
  return begin == std::array{'\x7f', 'E', 'L', 'F'};
}

// Reads, and runs nothing. Throws as Torch does.
Result<Package> ReadPackage(const std::filesystem::path& path) {
  caffe2::serialize::PyTorchStreamReader zip(path.string());
  const auto read = [&](const std::string& name) {
    const auto [data, size] = zip.getRecord(name);
    return std::string(static_cast<const char*>(data.get()), size);
  };
  Package package;
  bool has_code = false;
  for (const std::string& name : zip.getAllRecords()) {
    if (!name.starts_with(kFolder)) continue;
    if (name.ends_with(".so")) has_code = has_code || IsLibrary(path, zip.getRecordOffset(name));
    if (name.ends_with(".cpp")) ReadShape(read(name), &package);
    if (!name.ends_with("_metadata.json")) continue;
    const auto json = nlohmann::json::parse(read(name), nullptr, /*allow_exceptions=*/false);
    const auto word = [&](const char* field) { return json.is_object() && json.contains(field) && json[field].is_string() ? json[field].get<std::string>() : ""; };
    package.device = word("AOTI_DEVICE_KEY");
    package.platform = word("AOTI_PLATFORM");
    package.machine = word("AOTI_MACHINE");
    package.isa = word("AOTI_CPU_ISA");
  }
  // Of a package with sources only, Torch's loader would start whatever compiler it names.
  if (!has_code || package.device.empty()) return Fail(ErrorCode::kModel, fmt::format("no compiled model in it: {}", kMakeOne));
  return package;
}

// What of "AVX512 AVX512_VNNI" this CPU lacks; or empty. Names that are not known are passed over.
std::string Missing(const std::string& isa) {
  const auto has = at::cpu::get_cpu_capabilities();
  for (const auto& [word, name] : {std::pair{"AVX2", "avx2"}, {"AVX512", "avx512_f"}, {"AVX512_VNNI", "avx512_vnni"}, {"AMX_TILE", "amx_tile"}}) {
    const auto found = has.find(name);
    if ((" " + isa + " ").find(fmt::format(" {} ", word)) != std::string::npos && found != has.end() && !found->second.toBool()) return word;
  }
  return "";
}

Result<void> CheckMachine(const Package& package, c10::Device device) {
  const std::string type = c10::DeviceTypeName(device.type(), /*lower_case=*/true);
  if (package.device != type) {
    return Fail(ErrorCode::kModel, fmt::format("was compiled for device '{}' and is asked to run on '{}': say --device {}, or export it again for {}",
                                               package.device, type, package.device, type));
  }
  utsname here = {};
  uname(&here);
  if ((!package.platform.empty() && package.platform != "linux") || (!package.machine.empty() && package.machine != here.machine)) {
    return Fail(ErrorCode::kModel, fmt::format("was compiled for {} {}, and this is linux {}: export it again on this kind of machine",
                                               package.platform, package.machine, here.machine));
  }
  if (const std::string missing = Missing(package.isa); !missing.empty()) {
    return Fail(ErrorCode::kModel, fmt::format("was compiled for a CPU with {}, and this one has no {}: export it again on this kind of machine",
                                               package.isa, missing));
  }
  return {};
}

Result<void> CheckShape(const Package& package, const PackageUse& use) {
  if (!package.has_shape) return {};  // what it does to a few batches must do
  const std::array<int64_t, kRank> wanted = {0, static_cast<int64_t>(use.input.mean.size()), use.input.height, use.input.width};
  const auto fail = [](const std::string& what) { return Fail(ErrorCode::kModel, what); };
  std::vector<std::string> exported;
  for (size_t d = 0; d < std::min(package.rank, kRank); ++d) {
    exported.push_back(package.sides[d].fixed ? fmt::to_string(*package.sides[d].fixed) : d == 0 ? "N" : "*");
  }
  if (package.rank > kRank) exported.push_back("..");
  const std::string shape = fmt::format("was exported for [{}]", fmt::join(exported, ", "));
  if (package.inputs != 1) return fail(fmt::format("takes {} inputs, expected one: images", package.inputs));
  if (package.type != "float32") return fail(fmt::format("takes inputs of type {}, expected float32: convert them inside the model", package.type));
  bool same = package.rank == kRank;
  for (size_t d = 1; d < kRank; ++d) {
    const Side& side = package.sides[d];
    same = same && side.fixed.value_or(wanted[d]) == wanted[d] && wanted[d] >= side.least && wanted[d] <= side.most;
  }
  if (!same) return fail(fmt::format("{} and its card says [N, {}, {}, {}]", shape, wanted[1], wanted[2], wanted[3]));
  int64_t stride = 1;
  for (size_t d = kRank; d-- > 0; stride *= wanted[d]) {
    const bool matters = d == 0 || wanted[d] > 1;
    if (matters && package.strides[d].value_or(stride) != stride) {
      return fail(fmt::format("{} in another memory layout: export it with a contiguous input, channels first", shape));
    }
  }
  const Side& batch = package.sides[0];
  if (batch.fixed || batch.least > use.smallest_batch || batch.most < use.largest_batch) {
    const std::string sizes = batch.fixed ? "only" : fmt::format("of {} to {}", batch.least, batch.most);
    return fail(fmt::format("{}, batches {}, and is asked for batches of {} to {}: export it with dynamic_shapes=({{0: torch.export.Dim(\"n\")}},)",
                            shape, sizes, use.smallest_batch, use.largest_batch));
  }
  return {};
}

}  // namespace

bool IsCompiledPackage(const std::filesystem::path& path) { return path.extension() == ".pt2"; }

Result<Network> LoadCompiledPackage(const std::filesystem::path& path, const PackageUse& use) {
  const std::string teacher = fmt::format("teacher '{}'", path.filename().string());
  const auto named = [&](const Error& e) { return Fail(e.code, fmt::format("{}: {}", teacher, e.message)); };
  try {
    const Result<Package> package = ReadPackage(path);
    if (!package) return named(package.error());
    if (auto checked = CheckMachine(*package, use.device); !checked) return named(checked.error());
    if (auto checked = CheckShape(*package, use); !checked) return named(checked.error());
    // A call that finds no runner free waits for one, and for ever where another call failed.
    const auto loader = std::make_shared<torch::inductor::AOTIModelPackageLoader>(path.string(), "model", /*run_single_threaded=*/false,
                                                                                  use.threads, use.device.index());
    return [loader](at::Tensor x) {
      // The number of threads is written into the code where it was compiled; with no level of them allowed there is one.
      thread_local const bool alone = (omp_set_max_active_levels(0), true);
      static_cast<void>(alone);
      const std::vector<at::Tensor> out = loader->run({std::move(x)});
      TORCH_CHECK(out.size() == 1, "gives ", out.size(), " tensors, expected one");
      return out[0];
    };
  } catch (const std::exception& e) {
    const std::string_view what = e.what();
    return Fail(ErrorCode::kModel, fmt::format("{}: {}: {}", teacher, kMakeOne, what.substr(0, what.find('\n'))));
  }
}

}  // namespace fkdb
