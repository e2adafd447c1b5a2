// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/ingest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "engine/ingest/change_contexts.h"
#include "engine/ingest/parent_comparison.h"
#include "engine/values/layout.h"
#include "io/call_on.h"
#include "io/file.h"
#include "io/log.h"
#include "io/outcome.h"
#include "qcow/chain/chain.h"
#include "qcow/check/check.h"
#include "qcow/image/create.h"
#include "qcow/image/image.h"

namespace engine {
namespace {

std::atomic<uint64_t> connections_ever = 0;

std::string file_name_of(const std::string& path) {
  return path.substr(io::parent_path(path).size() + 1);
}

/// The parent as the new image's header names it, once it is known to be what was published: the
/// same length, untouched by other programs, and with the manifest that lies beside it.
io::Task<qcow::NewParent> inspect_parent(io::Runtime runtime, IngestParent parent,
                                         std::string repository_directory) {
  qcow::ChainOptions options;
  options.repository_root = std::move(repository_directory);
  const auto chain = co_await qcow::Chain::open(runtime, parent.path, options);
  const std::string name = file_name_of(parent.path);
  if (const auto doubt = chain->suspect()) {
    throw std::runtime_error(fmt::format("parent \"{}\" cannot be trusted: {}", name, *doubt));
  }
  const uint64_t length = chain->layer(0).file_bytes();
  if (parent.file_bytes != 0 && length != parent.file_bytes) {
    throw std::runtime_error(
        fmt::format("parent \"{}\" is {} bytes long and was published with {}; it has been "
                    "changed since, start with a full backup",
                    name, length, parent.file_bytes));
  }
  qcow::NewParent made{.name = name};
  const auto& record = chain->layer(0).header().record;
  if (!record) co_return made;
  made.uuid = record->image_uuid;
  made.manifest_hash = record->manifest_hash;
  const std::string manifest_path = parent.path + ".json";
  const std::string manifest = co_await io::read_text(runtime.files, manifest_path);
  if (record->published() && sha256(manifest) != record->manifest_hash) {
    throw std::runtime_error(
        fmt::format("parent \"{}\" is not the image that its sidecar describes", name));
  }
  co_return made;
}

}  // namespace

std::string text_of(const std::exception_ptr& failure) noexcept {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& cause) {
    return cause.what();
  } catch (...) {
    return "unknown failure";
  }
}

Ingest::Ingest(io::Runtime home, io::Runtime data, IngestSpec spec)
    : home_(home), data_(data), spec_(std::move(spec)) {}

Ingest::~Ingest() = default;

io::Task<std::unique_ptr<Ingest>> Ingest::open(io::Runtime home, io::Runtime data,
                                               IngestSpec spec) {
  std::unique_ptr<Ingest> ingest(new Ingest(home, data, std::move(spec)));
  const auto there = [&]() -> io::Task<void> { return ingest->open_there(); };
  co_await io::call_on(data.executor, home.executor, there);
  co_return ingest;
}

io::Task<void> Ingest::open_there() {
  if (spec_.resumes) {
    co_await take_up_image();
  } else {
    co_await make_image();
  }
  filling_->count();
}

io::Task<void> Ingest::make_image() {
  qcow::CreateOptions create;
  create.virtual_size = spec_.capacity_bytes;
  create.image_uuid = spec_.image_uuid;
  if (spec_.parent) {
    create.parent = co_await inspect_parent(data_, *spec_.parent, spec_.repository_directory);
  }
  bool noted = false;
  io::Outcome<> opened = co_await io::attempt([&]() -> io::Task<void> {
    std::unique_ptr<ArrivalLog> log;
    if (!spec_.arrived_path.empty()) {
      // Before the image, whose creation makes the names of both durable.
      log = co_await ArrivalLog::create(data_, spec_.arrived_path, spec_.image_uuid,
                                        qcow::kClusterBitsDefault);
      noted = true;
    }
    co_await qcow::create(data_, spec_.path, create);
    arrivals_ = std::make_unique<Arrivals>(data_, std::move(log), Coverage());
  });
  if (opened.failed() && noted) co_await data_.files.remove(spec_.arrived_path);
  opened.take();
  io::Outcome<> filling = co_await io::attempt([this] { return open_image(); });
  if (filling.failed()) {
    if (filling_) co_await filling_->image().abandon();
    filling_.reset();
    co_await data_.files.remove(spec_.path);
    if (noted) co_await data_.files.remove(spec_.arrived_path);
  }
  filling.take();
}

/// What an earlier job has left stays, whatever fails here.
io::Task<void> Ingest::take_up_image() {
  if (spec_.parent) {
    co_await inspect_parent(data_, *spec_.parent, spec_.repository_directory);
  }
  auto log = co_await ArrivalLog::open(data_, spec_.arrived_path, spec_.image_uuid,
                                       qcow::kClusterBitsDefault, spec_.capacity_bytes);
  resumed_ = log->counters();
  resumed_.resumed_bytes = resumed_.bytes_received;
  Coverage kept = log->take_arrived();
  arrivals_ = std::make_unique<Arrivals>(data_, std::move(log), std::move(kept));
  // Of a disk that was sealed, and not published with the others.
  const auto manifest = co_await data_.files.status(spec_.sums_path, false);
  if (manifest) co_await data_.files.remove(spec_.sums_path);
  io::Outcome<> opened = co_await io::attempt([this] { return open_image(); });
  if (opened.failed() && filling_) {
    co_await filling_->image().abandon();
    filling_.reset();
  }
  opened.take();
}

/// The image that is there, and its export.
io::Task<void> Ingest::open_image() {
  qcow::ImageOptions options;
  options.repository_root = spec_.repository_directory;
  options.commit_interval = spec_.commit_interval;
  options.commit_bytes = spec_.commit_bytes;
  options.disk = spec_.disk;
  // A client that ignored one refused write would complete a backup without it.
  options.full_is_final = true;
  options.sums_path = spec_.sums_path;
  if (spec_.write_elision) options.elide_by = sums_path;
  options.on_sums = [this](std::span<const std::byte> bytes) { sums_.add(bytes); };
  if (!spec_.arrived_path.empty()) {
    options.on_sum = [this](qcow::GuestCluster cluster, const qcow::Sum* sum) {
      arrivals_->note_sum(cluster, sum);
    };
  }
  options.on_failure = [this](std::exception_ptr cause) {
    if (export_) export_->fail(std::move(cause));
  };
  auto image = co_await qcow::Image::open(data_, spec_.path, options);
  if (!image->locks_supported()) {
    io::log(io::LogLevel::warning,
            "{}: this file system has no byte-range locks; other programs are not kept out",
            spec_.path);
  }
  filling_ = std::make_unique<Filling>(std::move(image), *arrivals_, stored_);
  export_ = nbd::Export::make(export_spec(), *filling_, data_);
  arrivals_->start(filling_->image(), [this] { return counters(); });
}

nbd::ExportSpec Ingest::export_spec() {
  nbd::ExportSpec spec;
  spec.name = spec_.export_name;
  spec.description = spec_.description;
  spec.kind = nbd::ExportKind::ingest;
  spec.connections_max = spec_.connections_max;
  spec.access = spec_.access;
  spec.owner = spec_.owner;
  if (const qcow::Chain* const parents = filling_->image().parents()) {
    spec.more_contexts = change_contexts_of(*parents, 0, spec_.ancestors);
  }
  spec.observer = this;
  return spec;
}

DiskCounters Ingest::counters() const {
  const nbd::Counters& traffic = export_->counters();
  DiskCounters counters = resumed_;
  counters.bytes_received += traffic.bytes_received;
  counters.bytes_zeroed += traffic.bytes_zeroed;
  counters.sampled_zero_requests += traffic.zero_requests_4mib;
  counters.sampled_zero_bytes += traffic.zero_bytes_4mib;
  counters.bytes_elided += stored_.elided_bytes;
  counters.bytes_stored += stored_.stored_bytes;
  counters.covered_bytes = stored_.covered_bytes;
  counters.judged_bytes += stored_.judged_bytes;
  counters.incompressible_bytes += stored_.incompressible_bytes;
  counters.zero_data_bytes += stored_.zero_data_bytes;
  return counters;
}

std::optional<Time> Ingest::last_request_at() const {
  const std::chrono::nanoseconds since_epoch(traffic().last_request_wall_ns.load());
  if (since_epoch.count() == 0) return std::nullopt;
  return Time(std::chrono::floor<std::chrono::seconds>(since_epoch));
}

io::Task<SealedImage> Ingest::seal() {
  SealedImage sealed;
  const auto there = [&]() -> io::Task<void> {
    co_await export_->seal();
    co_await arrivals_->confirm_all();
    if (spec_.whole && spec_.parent) co_await filling_->zero_the_rest();
    co_await keep_there();
    const qcow::SealedImage image = co_await filling_->image().seal();
    filling_->count();
    co_await require_clean();
    const auto parents = co_await open_parents_there();
    const auto status = co_await data_.files.status(spec_.path);
    sealed.file_bytes = image.file_bytes;
    sealed.allocated_bytes = status ? status->allocated_bytes : 0;
    sealed.sums_sha256 = to_hex(sums_.take());
    const auto& record = filling_->image().header().record;
    if (record && record->parent_manifest_hash != Sha256{}) {
      sealed.parent_root = to_hex(record->parent_manifest_hash);
    }
    if (parents) sealed.comparison = co_await compare_there(*parents);
  };
  co_await io::call_on(data_.executor, home_.executor, there);
  sealed.counters = counters();
  co_return sealed;
}

/// PU3: the checker shares no code with the writer.
io::Task<void> Ingest::require_clean() {
  const std::string name = file_name_of(spec_.path);
  const auto file = co_await data_.files.open(spec_.path, io::OpenMode::read_only);
  const qcow::CheckResult result = co_await qcow::check(*file, name, qcow::CheckOptions());
  if (result.clean() && result.shared_clusters == 0) co_return;
  throw std::runtime_error(
      fmt::format("\"{}\" is not sound: {} errors, {} leaked and {} shared clusters; first: {}",
                  name, result.corruptions, result.leaks, result.shared_clusters,
                  result.findings.empty() ? "-" : result.findings.front()));
}

io::Task<void> Ingest::require_parents() {
  const auto there = [&]() -> io::Task<void> { co_await open_parents_there(); };
  co_await io::call_on(data_.executor, home_.executor, there);
}

/// What is looked at here endangers no backup: a failure costs the comparison.
io::Task<ParentComparison> Ingest::compare_there(qcow::Chain& parents) {
  ParentComparison comparison;
  try {
    comparison = co_await compare_with_parent(filling_->image(), parents,
                                              filling_->sampler().incompressible_places());
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "{}: not compared with its parent: {}", spec_.path,
            failure.what());
  }
  co_return comparison;
}

/// By their names, as whoever reads the point will. Null for a full.
io::Task<std::unique_ptr<qcow::Chain>> Ingest::open_parents_there() {
  if (!spec_.parent) co_return nullptr;
  qcow::ChainOptions options;
  options.repository_root = spec_.repository_directory;
  std::string cause;
  try {
    auto parents = co_await qcow::Chain::open_parents_of(data_, spec_.path,
                                                         filling_->image().header(), options);
    cause = parents->suspect().value_or("");
    if (cause.empty()) co_return parents;
  } catch (const qcow::FormatError& other) {
    cause = other.what();
  } catch (const std::system_error& failure) {
    if (failure.code().value() != ENOENT) throw;
    cause = failure.what();
  }
  throw std::runtime_error(
      fmt::format("the parent \"{}\" was removed or replaced while this backup was written on it "
                  "({}); start a full backup",
                  file_name_of(spec_.parent->path), cause));
}

io::Task<void> Ingest::publish_header(qcow::Publication publication) {
  const auto there = [&]() -> io::Task<void> {
    return filling_->image().publish_header(publication.manifest_hash, publication.time);
  };
  co_await io::call_on(data_.executor, home_.executor, there);
}

io::Task<void> Ingest::close() {
  const auto there = [&]() -> io::Task<void> {
    export_->close();
    filling_->image().release_locks();  // connections may linger; a deletion need not wait for them
    co_return;
  };
  co_await io::call_on(data_.executor, home_.executor, there);
}

io::Task<void> Ingest::retire(Leaving leaving) {
  const auto there = [&]() -> io::Task<void> { return retire_there(leaving); };
  co_await io::call_on(data_.executor, home_.executor, there);
  alive_.reset();
}

/// A failure costs what was not saved before: it would have to be sent again.
io::Task<void> Ingest::keep_there() {
  co_await arrivals_->stop();
  try {
    co_await arrivals_->save();
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "{}: what arrived last could not be noted: {}", spec_.path,
            failure.what());
  }
}

io::Task<void> Ingest::retire_there(Leaving leaving) {
  co_await export_->join();
  filling_->count();
  if (leaving == Leaving::what_has_arrived) {
    co_await keep_there();
    io::Outcome<> closed = co_await io::attempt([this] { return filling_->image().close(); });
    if (closed.failed()) {
      io::log(io::LogLevel::warning, "{}: {}", spec_.path, text_of(closed.failure()));
    }
  }
  co_await arrivals_->stop();
  co_await filling_->image().abandon();
  filling_.reset();
}

void Ingest::connection_opened(nbd::Export&) {
  connection_order_ = ++connections_ever;
  home_.executor.post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.lock()) spec_.on_connection();
  });
}

void Ingest::storage_failed(nbd::Export&, std::exception_ptr cause) {
  home_.executor.post([this, alive = std::weak_ptr<bool>(alive_), text = text_of(cause)] {
    if (alive.lock()) spec_.on_failure(text);
  });
}

}  // namespace engine
