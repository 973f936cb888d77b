// SPDX-License-Identifier: Apache-2.0
// fkdb-train: trains a student from a label set, or the same student on plain labels.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "db/preload.h"
#include "db/sha256.h"
#include "format/text.h"
#include "image/data_set.h"
#include "reader/reader.h"
#include "tools/cli.h"
#include "tools/config_file.h"
#include "tools/eval_command.h"
#include "tools/export_command.h"
#include "tools/pixel_flags.h"
#include "tools/programs.h"
#include "tools/teacher_flags.h"
#include "tools/tensorboard_log.h"
#include "trainer/labelled_images.h"
#include "trainer/match.h"
#include "trainer/model_names.h"
#include "trainer/relabel.h"
#include "trainer/supervision.h"
#include "trainer/train.h"
#include "writer/recipe.h"

namespace fkdb {
namespace {

struct Flags : CommonFlags {
  std::string images, db, supervision, crop_order = "cycle", preload = "auto", crop_on = "cpu", out = "fkdb-run", teacher_sees = "crops";
  std::string schedule = "cosine", lr_interval = "pass";
  std::vector<double> betas = {0.9, 0.999};
  bool no_decay_1d = false, no_single_crop_tail = false;
  double label_smoothing = 0, lambda = 1;
  float teacher_temperature = 1;
  TeacherFlags teachers;
  PixelFlags pixels;
  TrainConfig train;
  std::optional<uint32_t> crops_per_image;
  ValidationFlags validation;
  EvalFlags eval;
  bool tensorboard = false;
  uint64_t limit = 0;
  bool allow_missing = false, check_images = false;
  ExportFlags export_weights;

  bool stored_crops() const { return (supervision == "db" || supervision == "teacher") && !db.empty(); }
};

std::string ProgressLine(const TrainProgress& p) {
  return fmt::format("{} of epoch {} of {}  loss {:.4f}  lr {:.4f}  {:.0f} crops/s  {} left", Bar(p.step, p.steps), p.epoch + 1,
                     p.epochs, p.loss, p.learning_rate, p.crops_per_second, HumanSeconds(p.seconds_left));
}

std::string MetricsText(const std::string& line) {
  const auto m = nlohmann::json::parse(line);
  std::string text = fmt::format("epoch {:>4}  lr {:.5f}  loss {:.4f}", m["epoch"].get<int>(), m["lr"].get<double>(),
                                 m["loss"].get<double>());
  if (m.contains("discriminator_loss")) text += fmt::format("  discriminator {:.4f}", m["discriminator_loss"].get<double>());
  if (m.contains("top1")) {
    text += fmt::format("  top-1 {:.2f}%  top-5 {:.2f}%", 100 * m["top1"].get<double>(), 100 * m["top5"].get<double>());
  }
  return text + fmt::format("  {:.1f} s for {} crop{} an image\n", m["seconds"].get<double>(),
                            m["crops_per_image"].get<int>(), m["crops_per_image"].get<int>() == 1 ? "" : "s");
}

std::string ProfileText(const std::string& line) {
  const auto metrics = nlohmann::json::parse(line);
  const auto found = metrics.find("profile");
  if (found == metrics.end()) return "";
  const auto& p = *found;
  const double all = p["seconds"].get<double>(), steps = std::max(1.0, p["steps"].get<double>());
  std::string text = fmt::format("  {:<18}{:>10}{:>12}{:>9}\n", "training thread", "seconds", "ms a step", "share");
  const auto add = [&](const char* name, double seconds) {
    text += fmt::format("    {:<16}{:>10.2f}{:>12.3f}{:>8.1f}%\n", name, seconds, 1e3 * seconds / steps,
                        100 * seconds / std::max(1e-9, all));
  };
  double rest = all;
  for (const char* name : {"idle", "forward", "backward", "optimizer"}) {
    add(name, p[name].get<double>());
    rest -= p[name].get<double>();
  }
  add("other", rest);
  text += "  workers\n";
  for (const char* name : {"load", "decode", "unpack", "teacher"}) add(name, p["workers"][name].get<double>());
  return text + fmt::format("  batches in memory: at most {} of {:.1f} MiB\n", p["batches"].get<uint64_t>(),
                            p["batch_bytes"].get<double>() / (1 << 20));
}

Result<void> CheckValidation(const DataSet& train, const DataSet& validation, const Supervision& supervision) {
  const auto& names = train.class_names();
  const bool same = names.empty() ? validation.class_names().size() == supervision.spec().num_classes
                                  : validation.class_names() == names;
  if (same && validation.channels() == train.channels()) return {};
  return Fail(ErrorCode::kMismatch,
              fmt::format("the validation images of '{}' have other classes or channels than the training images of "
                          "'{}': {} and {} classes",
                          validation.name(), train.name(), validation.class_names().size(), names.size()));
}

void AddScheduleFlags(CLI::App& app, Flags* flags) {
  Schedule& schedule = flags->train.schedule;
  app.add_option("--lr", schedule.rate, "Learning rate, before it decays")->capture_default_str();
  app.add_option("--schedule", flags->schedule, "How it decays: cosine, linear (to --min-lr), step, constant")->capture_default_str();
  app.add_option("--lr-interval", flags->lr_interval, "Changes with each pass over the images (the paper's serrated schedule), or each step")
      ->check(CLI::IsMember({"pass", "step"}))
      ->capture_default_str();
  app.add_option("--min-lr", schedule.min_rate, "At the end of cosine and linear")->capture_default_str();
  app.add_option("--step-epochs", schedule.step_epochs, "Of schedule step: 30,60,90")->delimiter(',');
  app.add_option("--step-factor", schedule.step_factor, "What each step multiplies the rate with")->capture_default_str();
  app.add_option("--warmup-epochs", schedule.warmup_epochs, "First epochs of one crop an image, whose rate rises")->capture_default_str();
  app.add_option("--warmup-lr", schedule.warmup_rate, "Where it rises from")->capture_default_str();
  app.add_flag("--no-single-crop-tail", flags->no_single_crop_tail, "Show m crops an image to the end");
}

void AddOptimizerFlags(CLI::App& app, Flags* flags) {
  OptimizerConfig& optimizer = flags->train.optimizer;
  app.add_option("--optimizer", optimizer.name, "sgd or adamw")->capture_default_str();
  app.add_option("--momentum", optimizer.momentum, "Of sgd")->capture_default_str();
  app.add_flag("--nesterov", optimizer.nesterov, "Nesterov's momentum");
  app.add_option("--betas", flags->betas, "Of adamw")->delimiter(',')->default_str("0.9,0.999");
  app.add_option("--adam-epsilon", optimizer.epsilon, "Of adamw")->capture_default_str();
  app.add_option("--weight-decay", optimizer.weight_decay, "Of sgd in the gradient, of adamw beside it")->capture_default_str();
  app.add_option("--no-decay", optimizer.no_decay, "No weight decay of parameters of these names either, where there are such: pos_embed,..")->delimiter(',');
  app.add_flag("--no-decay-1d", flags->no_decay_1d, "No weight decay of biases and normalization");
  app.add_option("--clip-norm", optimizer.clip_norm, "Scale gradients down to this norm (0: never)")->capture_default_str();
}

// What processes that were started together do not share. One of them speaks for all.
Result<void> TakePlace(Flags* flags) {
  FKDB_ASSIGN(const std::optional<Launch> launch, FindLaunch([](const char* name) { return std::getenv(name); }));
  if (!launch) return {};
  TrainConfig& config = flags->train;
  config.launch = *launch;
  config.device = DeviceOf(*launch, config.device);
  if (launch->rank > 0) flags->quiet = true;
  return {};
}

// Of the teachers' files, and what they see: a resumed training has the same.
Result<std::string> IdentityOf(const Ensemble& teachers) {
  std::string all;
  for (const auto& member : teachers.members) {
    FKDB_ASSIGN(const std::string hash, Sha256OfFile(member.teacher->file()));
    const InputSpec& in = member.teacher->input();
    all += fmt::format("{} {}x{} {} {} {} {} {};", hash, in.height, in.width, Name(in.interpolation), Name(in.pass_order), fmt::join(in.mean, ","),
                       fmt::join(in.std, ","), member.teacher->output_kind() == OutputKind::kLogits ? "logits" : "probabilities");
  }
  return all;
}

// Which supervision the flags mean, and whether they go together. labels: of --db, or null.
Result<void> ChooseSupervision(const Reader* labels, Flags* flags) {
  const auto bad = [](const char* what) { return Fail(ErrorCode::kInvalidArgument, what); };
  std::string& chosen = flags->supervision;
  const bool teachers = !flags->teachers.specs.empty();
  if (flags->db.empty() && (flags->allow_missing || flags->check_images)) return bad("--allow-missing and --check-images compare images with a label set: --db DB");
  if (chosen.empty()) chosen = teachers ? "teacher" : labels == nullptr ? "hard" : labels->spec().is_map() ? "relabel" : "db";
  if (chosen == "db" && labels == nullptr) return bad("--supervision db needs a label set: --db DB");
  if (chosen == "relabel" && labels == nullptr) return bad("--supervision relabel needs label maps: --db DB");
  if (chosen == "teacher" && !teachers) return bad("--supervision teacher needs one: --teacher MODEL");
  if (chosen != "teacher" && teachers) return bad("--teacher is for --supervision teacher");
  if (chosen != "teacher" && flags->lambda != 1) return bad("--lambda is for --supervision teacher");
  if (flags->teacher_sees == "mixed" && chosen != "teacher") return bad("--teacher-sees is for --supervision teacher");
  if (flags->teacher_sees == "mixed" && flags->train.mixing.empty()) return bad("--teacher-sees mixed needs crops that are mixed: --mixup A or --cutmix A");
  if (chosen != "hard" && flags->label_smoothing != 0) return bad("--label-smoothing is for hard labels: a teacher's are soft already");
  if (flags->stored_crops()) FKDB_TRY(CheckCrops(*labels));
  if (chosen == "relabel") FKDB_TRY(CheckMaps(*labels));
  if (flags->stored_crops() && !(flags->pixels.scale.empty() && flags->pixels.ratio.empty())) {
    return bad("--scale and --ratio are of fresh crops: those of --db are stored");
  }
  return {};
}

// Where crops and labels come from, and all that this needs while a training runs.
struct Labels {
  std::optional<Reader> reader;
  std::unique_ptr<LabelledImages> images;  // if they need not be all that there are
  std::optional<Preloader> preloader;
  std::unique_ptr<Supervision> crops;  // a teacher's
  std::optional<LoadedTeachers> teachers;
  std::unique_ptr<Supervision> supervision;
};

// Whether label set and images belong together, as closely as was asked for.
Result<void> MatchImages(const Flags& flags, const DataSet& data, Labels* labels) {
  const auto form = CheckForm(*labels->reader, data);
  if (!flags.allow_missing) {
    if (const auto match = CheckMatch(*labels->reader, data); !match) {
      const bool others = form && LabelledImages::Of(*labels->reader, data);
      return Fail(match.error().code, match.error().message + (others ? "; --allow-missing trains on those that both have" : ""));
    }
    if (!flags.check_images) return {};
  }
  FKDB_TRY(form);
  FKDB_ASSIGN(labels->images, LabelledImages::Of(*labels->reader, data));
  const uint64_t labelled = labels->images->size();
  if (flags.check_images) {
    Progress progress(flags.quiet || flags.json);
    const auto show = [&](uint64_t done, uint64_t all) { progress.Count(done, all, "images"); };
    const auto compared = labels->images->Compare({flags.train.workers, show, StopOnSignals()});
    progress.Done();
    FKDB_TRY(compared);
  }
  const std::string differences = labels->images->differences().Text(labelled);
  if (!flags.allow_missing && !differences.empty()) {
    return Fail(ErrorCode::kMismatch, fmt::format("{} does not match the images of '{}': {}; --allow-missing trains on the others", flags.db, Printable(data.name()), differences));
  }
  if (!differences.empty() && !flags.quiet && !flags.json && flags.train.launch.rank == 0) FKDB_TRY(PrintOut(fmt::format("{}: {}\n", flags.db, differences)));
  return {};
}

// Which images a training goes without, for its checkpoints.
std::string Without(const LabelledImages& images) {
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < images.size(); ++i) {
    if (!images.has(i)) keys.push_back(images.keys()[i]);
  }
  return keys.empty() ? "" : fmt::format(":without {} images {}", keys.size(), Sha256OfKeys(keys).substr(0, 16));
}

// Says in the configuration what the labels depend on. Of `labels` there is the reader, if there is a --db.
Result<void> MakeLabels(Flags* flags, const DataSet& all_images, Labels* labels) {
  TrainConfig& config = flags->train;
  FKDB_ASSIGN(AugmentationInfo pixels, DefaultAugmentation(all_images));
  if (!flags->db.empty()) {
    FKDB_TRY(MatchImages(*flags, all_images, labels));
    pixels = labels->reader->manifest().augmentation;
  }
  const DataSet& data = labels->images ? *labels->images : all_images;
  FKDB_ASSIGN(pixels, flags->pixels.Over(pixels));
  FKDB_ASSIGN(config.input, InputOf(pixels));

  const bool maps = flags->supervision == "relabel";
  std::string& said = config.supervision;
  if (flags->stored_crops()) {
    FKDB_ASSIGN(const CropOrder order, ParseCropOrder(flags->crop_order));
    FKDB_ASSIGN(labels->supervision, DbSupervision(*labels->reader, order, config.seed, labels->images.get()));
    said = fmt::format("{}:{}", flags->supervision, flags->crop_order);
  } else {
    const CropSampling sampling = {pixels.scale, pixels.ratio, pixels.flip_probability};
    FKDB_ASSIGN(labels->supervision, maps ? RelabelSupervision(*labels->reader, sampling, config.seed, labels->images.get())
                                          : HardSupervision(data, sampling, config.seed, flags->label_smoothing));
    said = fmt::format("{}:scale {}:ratio {}:flip {}:smoothing {}", flags->supervision, fmt::join(pixels.scale, ","), fmt::join(pixels.ratio, ","),
                       pixels.flip_probability, flags->label_smoothing);
  }
  if (flags->stored_crops() || maps) {
    FKDB_ASSIGN(const Preload preload, ParsePreload(flags->preload));
    labels->preloader.emplace(labels->reader->label_set(), preload);
    config.labels = labels->reader->manifest().digest;
  }
  if (labels->images) said += Without(*labels->images);
  if (flags->supervision != "teacher") return {};
  FKDB_ASSIGN(labels->teachers, flags->teachers.Load(data, {config.input, config.batch_size, config.device, config.workers, ""}));
  const Ensemble& ensemble = labels->teachers->ensemble;
  labels->crops = std::move(labels->supervision);
  FKDB_ASSIGN(labels->supervision, TeacherSupervision(*labels->crops, {&ensemble, flags->teacher_temperature, flags->lambda, flags->teacher_sees == "mixed"}, data));
  FKDB_ASSIGN(const std::string identity, IdentityOf(ensemble));
  said += fmt::format(":{}:{} {}:temperature {}:lambda {}", identity, flags->teachers.average, fmt::join(flags->teachers.weights, ","),
                      flags->teacher_temperature, flags->lambda);
  if (flags->teacher_sees == "mixed") said += ":mixed";
  return {};
}

// What flags say in another form than the configuration has.
Result<void> FillConfig(const Flags& flags, TrainConfig* config) {
  FKDB_ASSIGN(config->schedule.decay, ParseDecay(flags.schedule));
  config->schedule.every_step = flags.lr_interval == "step";
  config->schedule.single_crop_tail = !flags.no_single_crop_tail;
  config->optimizer.decay_vectors = !flags.no_decay_1d;
  if (flags.betas.size() != 2) return Fail(ErrorCode::kInvalidArgument, fmt::format("--betas: expected two numbers, got {}", flags.betas.size()));
  config->optimizer.beta1 = flags.betas[0];
  config->optimizer.beta2 = flags.betas[1];
  config->crops_per_image = flags.crops_per_image.value_or(flags.stored_crops() ? 4 : 1);
  config->out = flags.out;
  config->crop_on_gpu = flags.crop_on == "gpu";
  if (config->crop_on_gpu && config->device == "cpu") {
    return Fail(ErrorCode::kInvalidArgument, "--crop-on gpu is for trainings on one: --device cuda");
  }
  return {};
}

Result<int> Run(Flags& flags) {
  TrainConfig& config = flags.train;
  FKDB_TRY(TakePlace(&flags));
  Labels labels;
  if (!flags.db.empty()) {
    FKDB_ASSIGN(labels.reader, Reader::Open(flags.db));
  }
  FKDB_TRY(ChooseSupervision(labels.reader ? &*labels.reader : nullptr, &flags));
  FKDB_ASSIGN(const std::unique_ptr<DataSet> all_images, OpenDataSet(flags.images, flags.limit));
  FKDB_TRY(MakeLabels(&flags, *all_images, &labels));
  const DataSet& data = labels.images ? *labels.images : *all_images;
  FKDB_TRY(FillConfig(flags, &config));

  std::unique_ptr<DataSet> validation;
  FKDB_ASSIGN(const std::string val, flags.validation.One());
  if (!val.empty()) {
    FKDB_ASSIGN(validation, OpenDataSet(val));
    FKDB_TRY(CheckValidation(data, *validation, *labels.supervision));
    FKDB_ASSIGN(const EvaluationView view, flags.validation.View(*validation));
    config.evaluate_resize = view.resize;
    config.evaluate_crop = view.crop;
  }

  const bool leads = config.launch.rank == 0;
  Progress progress(flags.quiet || flags.json);
  TrainHooks hooks;
  std::optional<TensorBoardLog> tensorboard;
  if (flags.tensorboard) tensorboard.emplace(config.out);
  hooks.progress = [&](const TrainProgress& p) {
    progress.Show(ProgressLine(p));
    if (tensorboard) tensorboard->AddStep(p);
  };
  hooks.metrics = [&](const std::string& line) {
    progress.Done();
    if (tensorboard) tensorboard->AddPass(line);
    if (flags.quiet && !flags.json) return;
    static_cast<void>(PrintOut(flags.json ? line + "\n" : MetricsText(line) + ProfileText(line)));
  };
  hooks.stop = StopOnSignals();
  auto trained = Train(config, data, *labels.supervision, validation.get(), hooks);
  progress.Done();
  FKDB_ASSIGN(const TrainResult result, std::move(trained));
  const std::string weights = (config.out / kWeightsFile).string();
  if (flags.json && leads) {
    nlohmann::ordered_json json = {{"finished", result.finished},
                                   {"steps", result.steps},
                                   {"loss", result.loss},
                                   {"seconds_per_epoch", result.seconds_per_epoch}};
    if (validation) json.update({{"top1", result.top1}, {"top5", result.top5}, {"best_top1", result.best_top1}});
    if (labels.images) {
      const ImageDifferences& d = labels.images->differences();
      json["images"] = {{"trained_on", labels.supervision->images().size()}, {"missing", d.missing.size()}, {"resized", d.resized.size()},
                        {"changed", d.changed.size()}, {"unlabelled", d.unlabelled}};
    }
    if (result.finished) json["weights"] = weights;
    FKDB_TRY(PrintOut(json.dump() + "\n"));
  } else if (!flags.quiet && result.finished) {
    const bool trained_here = result.seconds_per_epoch > 0;  // not if a resume had only to evaluate
    FKDB_TRY(PrintOut(trained_here ? fmt::format("{}: {:.2f} s an epoch\n", weights, result.seconds_per_epoch) : weights + "\n"));
  }
  if (!result.finished && !flags.quiet) {
    fmt::print(stderr, "fkdb-train: stopped after {} steps; the same command with --resume continues\n", result.steps);
  }
  if (tensorboard) FKDB_TRY(tensorboard->Finish());
  return kExitOk;
}

}  // namespace
}  // namespace fkdb

int fkdb::RunTrain(int argc, char** argv) {
  fkdb::KeepFreedMemory();
  fkdb::Flags flags;
  CLI::App app("Trains a student from a label set (FKD), or the same student on plain labels.", "fkdb-train");
  AddCommonFlags(app, &flags, "Metrics and result as lines of JSON");
  fkdb::TrainConfig& train = flags.train;
  app.add_option("--images", flags.images, "The training images: a folder of images or of tar shards, or an IDX file")->required();
  app.add_option("--db", flags.db, "The label set of the training images");
  app.add_option("--supervision", flags.supervision, "db (with --db), relabel (--db holds label maps), hard (the images' own classes), or teacher (--teacher, asked in every step)")
      ->check(CLI::IsMember({"db", "relabel", "hard", "teacher"}));
  flags.teachers.AddTo(app);
  app.add_option("--teacher-temperature", flags.teacher_temperature, "Of the softmax of --teacher")->capture_default_str();
  app.add_option("--lambda", flags.lambda, "The share of --teacher in a label, beside the image's class (Eq. 1)")->capture_default_str();
  app.add_option("--teacher-sees", flags.teacher_sees, "With --mixup or --cutmix: each crop, whose labels are then mixed (crops), or what the student sees (mixed: FunMatch)")
      ->check(CLI::IsMember({"crops", "mixed"}))
      ->capture_default_str();
  app.add_option("--model", train.model, "A network: " + fkdb::ModelNames() + "; or FILE.pt, a module that torch.jit.script made")->required();
  app.add_option("--weights", train.weights, "Begin with these weights: .safetensors, or a state dict that torch.save wrote");
  app.add_flag("--new-head", train.new_head, "With --weights of other classes: draw the last layer, load the rest");
  app.add_option("--epochs", train.epochs, "Each shows one crop of every image")->required();
  app.add_option("--crops-per-image", flags.crops_per_image, "Crops of an image in a batch, m (stored crops: 4, fresh ones: 1)");
  app.add_option("--batch-size", train.batch_size, "Crops a step")->capture_default_str();
  app.add_option("--accumulate", train.accumulate, "Compute a step in N parts, for less memory")->capture_default_str();
  AddScheduleFlags(app, &flags);
  AddOptimizerFlags(app, &flags);
  app.add_option("--ema-decay", train.average_decay, "Evaluate and keep the weights' moving average: what stays of it at a step, as 0.9999")
      ->capture_default_str();
  app.add_option("--discriminator-lr", train.discriminator_rate, "Of MEAL V2's discriminator, which tells students from teachers (as 1e-4; 0: none)")
      ->capture_default_str();
  fkdb::MixingConfig& mixing = train.mixing;
  app.add_option("--mixup", mixing.mixup_alpha, "Mix the crops of a batch and their labels: alpha of Beta(alpha, alpha) (0: never)")->capture_default_str();
  app.add_option("--cutmix", mixing.cutmix_alpha, "The same by pasted boxes")->capture_default_str();
  app.add_option("--mix-probability", mixing.probability, "Of a batch to be mixed")->capture_default_str();
  app.add_option("--mix-switch", mixing.switch_probability, "With --mixup and --cutmix: the share of cutmix")->capture_default_str();
  app.add_option("--label-smoothing", flags.label_smoothing, "Of hard labels: the share that all classes get")->capture_default_str();
  app.add_option("--temperature", train.temperature, "Of the student's softmax")->capture_default_str();
  app.add_option("--tau", train.tau, "Of the softmax over stored logits")->capture_default_str();
  app.add_option("--crop-order", flags.crop_order, "cycle: each stored crop once before any twice; visit: at random")
      ->check(CLI::IsMember({"cycle", "visit"}))
      ->capture_default_str();
  app.add_option("--preload", flags.preload, "Read the label set in file order at the start: auto (if it fits into memory)")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->capture_default_str();
  app.add_option("--seed", train.seed, "Of weights, image order and crops")->capture_default_str();
  app.add_option("--device", train.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--autocast", train.autocast, "bf16: the forward pass in mixed precision");
  app.add_flag("--channels-last", train.channels_last, "Torch keeps images pixel by pixel");
  app.add_option("--threads", train.num_threads, "Torch's threads on the CPU (0: one a processor)")->capture_default_str();
  app.add_option("--workers", train.workers, "Threads that load batches")->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--crop-on", flags.crop_on, "Where crops are made of decoded images, to the same bits: cpu, or the gpu that trains")
      ->check(CLI::IsMember({"cpu", "gpu"}))
      ->capture_default_str();
  app.add_option("--out", flags.out, "Folder for checkpoint, weights and metrics")->capture_default_str();
  app.add_flag("--resume", train.resume, "Continue from the checkpoint in --out");
  app.add_option("--checkpoint-steps", train.checkpoint_steps, "Save every N steps too (0: after each pass)")
      ->capture_default_str();
  app.add_option("--max-steps", train.max_steps, "Stop, saved, after N steps in all (0: no limit)")->capture_default_str();
  app.add_flag("--profile", train.profile, "After each pass, where its time went");
  app.add_flag("--tensorboard", flags.tensorboard, "Write an event file for TensorBoard into --out");
  flags.validation.AddTo(app);
  flags.eval.AddTo(app);
  app.add_option("--limit", flags.limit, "Only the first N training images in key order");
  app.add_flag("--allow-missing", flags.allow_missing, "Train on the images that label set and data set both have, and say how many lack");
  app.add_flag("--check-images", flags.check_images, "First compare every image with the one that was labelled, by size and content");
  flags.pixels.AddTo(app);
  AddExportCommand(app, &flags.export_weights);
  fkdb::ConfigFile config(&app, "train");
  const auto run = [&] {
    if (config.print()) return config.Print();
    if (flags.eval.asked) return fkdb::RunEval(app, flags.eval, flags.validation, flags.pixels, flags.train, flags);
    for (const char* const flag : {"--real", "--class-order"}) {
      if (app.count(flag) == 0) continue;
      return fkdb::Result<int>(fkdb::Fail(fkdb::ErrorCode::kInvalidArgument, std::string(flag) + ": for evaluations: --eval WEIGHTS"));
    }
    return flags.export_weights.asked() ? fkdb::RunExport(app, flags.export_weights, flags) : fkdb::Run(flags);
  };
  return fkdb::RunTool(app, argc, argv, run, &config);
}
