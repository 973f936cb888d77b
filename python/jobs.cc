// SPDX-License-Identifier: Apache-2.0
// Whole-file work: verify, audit, merge, subset, and the command line programs themselves.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "db/rewrite.h"
#include "python/bind.h"
#include "reader/audit.h"
#include "reader/verify.h"
#include "tools/programs.h"

namespace fkdb::python {
namespace {

namespace fs = std::filesystem;

// Lets Ctrl-C and the caller's progress in, now and then, while a job runs without the GIL.
class Watch {
 public:
  explicit Watch(nb::object progress) : progress_(std::move(progress)) {}

  std::function<void(uint64_t, uint64_t)> callback() {
    return [this](uint64_t done, uint64_t all) {
      if (stop_) return;
      const nb::gil_scoped_acquire held;
      try {
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
        if (!progress_.is_none()) progress_(done, all);
      } catch (nb::python_error& error) {
        raised_.emplace(std::move(error));
        stop_ = true;
      }
    };
  }
  const std::atomic<bool>* stop() const { return &stop_; }
  // Raises what the callback met.
  void Check() {
    if (raised_) throw std::move(*raised_);
  }

 private:
  nb::object progress_;
  std::atomic<bool> stop_ = false;
  std::optional<nb::python_error> raised_;
};

nb::dict VerifyFile(const fs::path& path, int threads, nb::object progress) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  Watch watch(std::move(progress));
  const VerifyReport report = Released([&] { return Verify(path, threads, watch.callback(), watch.stop()); });
  watch.Check();
  nb::dict fields;
  nb::list errors;
  for (const std::string& error : report.errors) errors.append(ToPython(std::string_view(error)));
  fields["ok"] = report.ok;
  fields["images"] = report.images;
  fields["crops"] = report.crops;
  fields["digest"] = report.digest;
  fields["errors"] = errors;
  fields["error_count"] = report.error_count;
  return fields;
}

template <class Options, class Job>
nb::str Rewrite(Options options, bool resume, bool overwrite, const std::string& created, nb::object progress, const Job& job) {
  Watch watch(std::move(progress));
  options.file.resume = resume;
  options.file.overwrite = overwrite;
  options.provenance.tool = "fkdb (Python) " FKDB_VERSION;
  options.provenance.created = created;
  options.progress = watch.callback();
  options.stop = watch.stop();
  Result<Manifest> made = Released([&] { return Guarded([&] { return job(options); }); });
  watch.Check();
  return ToPython(std::string_view(ToJson(Unwrap(std::move(made)))));
}

int RunProgram(const std::string& name, const std::vector<nb::bytes>& arguments) {
  const Program* program = FindProgram(name);
  if (program == nullptr) Raise({ErrorCode::kNotFound, "no program '" + name + "'"});
  std::string argv0 = "fkdb-" + name;
  std::vector<char*> argv = {argv0.data()};
  for (const nb::bytes& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  return Released([&] { return program->run(static_cast<int>(argv.size()) - 1, argv.data()); });
}

}  // namespace

void BindJobs(nb::module_& module) {
  module.def("verify", &VerifyFile, nb::arg("path"), nb::arg("threads"), nb::arg("progress").none());
  module.def("audit_json", [](const LabelSetPtr& set) {
    return ToPython(ToJson(WithoutGil([&] { return Audit(set->reader); })));
  }, nb::arg("label_set"));
  module.def("merge", [](const fs::path& out, const std::vector<fs::path>& inputs, bool collection, bool resume, bool overwrite,
                         const std::string& created, nb::object progress) {
    return Rewrite(RewriteOptions(), resume, overwrite, created, std::move(progress), [&](const RewriteOptions& options) {
      return (collection ? CollectLabelSets : MergeLabelSets)(inputs, out, options);
    });
  }, nb::arg("out"), nb::arg("inputs"), nb::arg("collection"), nb::arg("resume"), nb::arg("overwrite"), nb::arg("created"),
     nb::arg("progress").none());
  module.def("subset", [](const fs::path& input, const fs::path& out, const nb::iterable& images, uint32_t crops, const std::string& recode,
                          bool resume, bool overwrite, const std::string& created, nb::object progress) {
    SubsetOptions subset;
    subset.images = FromPython(images);
    subset.crops = crops;
    subset.recode = recode;
    return Rewrite(subset, resume, overwrite, created, std::move(progress),
                   [&](const SubsetOptions& options) { return SubsetLabelSet(input, out, options); });
  }, nb::arg("input"), nb::arg("out"), nb::arg("images"), nb::arg("crops"), nb::arg("recode"), nb::arg("resume"), nb::arg("overwrite"),
     nb::arg("created"), nb::arg("progress").none());
  module.def("run_program", &RunProgram, nb::arg("name"), nb::arg("arguments"));
  module.def("version", [] { return std::string(FKDB_VERSION); });
}

}  // namespace fkdb::python
