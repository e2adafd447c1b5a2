// SPDX-License-Identifier: Apache-2.0
#include "engine/care/verify_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "engine/repository/sidecar.h"
#include "engine/values/digest.h"
#include "engine/values/layout.h"
#include "io/counted.h"
#include "io/outcome.h"
#include "qcow/chain/layer.h"
#include "qcow/chain/sums_reader.h"
#include "qcow/check/check.h"
#include "qcow/check/check_content.h"

namespace engine {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;

io::Task<Sha256> sha256_of_file(io::FileSystem& files, std::string path) {
  const auto file = co_await files.open(path, io::OpenMode::read_only);
  Sha256Stream stream;
  std::vector<std::byte> bytes(kReadBytes);
  const uint64_t size = co_await file->size();
  for (uint64_t at = 0; at < size; at += bytes.size()) {
    const auto piece = std::span(bytes).first(std::min<uint64_t>(bytes.size(), size - at));
    co_await file->read(at, piece);
    stream.add(piece);
  }
  co_return stream.take();
}

/// What memory remembers can hide what the disk has lost. What is not there is found where it is
/// read.
io::Task<void> forget_cached(io::FileSystem& files, std::string path) {
  try {
    const auto file = co_await files.open(path, io::OpenMode::read_only);
    co_await file->forget_cached();
  } catch (const std::system_error&) {
  }
}

class ImageProof {
 public:
  ImageProof(io::Runtime data, ImageVerification verification, std::string image_path,
             std::string parent_path, ContentReaders readers,
             std::shared_ptr<VerifyProgress> progress)
      : data_(data),
        readers_(readers),
        answer_(std::move(verification)),
        path_(std::move(image_path)),
        parent_path_(std::move(parent_path)),
        progress_(std::move(progress)) {}

  io::Task<ImageVerification> run() {
    io::Outcome<> proved = co_await io::attempt([this] { return prove(); });
    std::string problem;
    try {
      proved.take();
    } catch (const std::runtime_error& failure) {  // refused, unreadable, or not as published
      if (progress_->cancelled) throw;
      problem = failure.what();
    }
    if (!problem.empty()) answer_.problem = problem;
    if (answer_.second_reader) {
      answer_.damaged_bytes = std::max(answer_.damaged_bytes, answer_.second_reader->damaged_bytes);
    }
    if (!answer_.problem.empty() || answer_.damaged_bytes > 0) {
      answer_.result = VerificationResult::damaged;
    }
    co_return std::move(answer_);
  }

 private:
  io::Task<void> prove() {
    co_await wait_for_turn();
    co_await forget_all();
    const auto image = co_await qcow::Layer::open(data_, path_, {});
    co_await prove_tables();
    const Sidecar sidecar = co_await prove_sidecar(*image);
    if (!parent_path_.empty()) co_await prove_parent(*image, sidecar);
    if (sidecar.disk.sums_sha256.empty()) {
      answer_.result = VerificationResult::without_manifest;
      co_return;
    }
    co_await wait_for_turn();
    co_await prove_manifest(sidecar);
    const bool is_covered = co_await prove_by_second(*image);
    co_await prove_content(*image, readers_.varve || !is_covered);
    answer_.result = VerificationResult::sound;
  }

  /// Both readers come after this.
  io::Task<void> forget_all() {
    std::vector<std::string> paths = {path_, sidecar_path(path_), sums_path(path_)};
    if (!parent_path_.empty()) {
      paths.push_back(parent_path_);
      paths.push_back(sidecar_path(parent_path_));
    }
    for (const std::string& path : paths) co_await forget_cached(data_.files, path);
  }

  io::Task<void> prove_tables() {
    const auto file = co_await data_.files.open(path_, io::OpenMode::read_only);
    const std::string name = qcow::image_name_of(path_);
    const qcow::CheckResult tables = co_await qcow::check(*file, name, qcow::CheckOptions());
    if (tables.corruptions == 0) co_return;
    // What of the content is hit by that, the manifest says.
    answer_.problem =
        fmt::format("its tables have {}; first: {}", io::counted(tables.corruptions, "error"),
                    tables.findings.empty() ? "-" : tables.findings.front());
  }

  io::Task<Sidecar> prove_sidecar(const qcow::Layer& image) {
    const auto& record = image.header().record;
    if (!record || !record->published()) {
      throw std::runtime_error("its header does not say that it was published");
    }
    const std::string text = co_await io::read_text(data_.files, sidecar_path(path_));
    if (sha256(text) != record->manifest_hash) {
      throw std::runtime_error("its sidecar is not the one that it was published with");
    }
    Sidecar sidecar = decode_sidecar(text);
    if (sidecar.disk.file_bytes != image.file_bytes()) {
      answer_.problem = fmt::format("it is {} bytes long, and was published with {}",
                                    image.file_bytes(), sidecar.disk.file_bytes);
    }
    co_return sidecar;
  }

  io::Task<void> prove_parent(const qcow::Layer& image, const Sidecar& sidecar) {
    const std::string name = qcow::image_name_of(parent_path_);
    const auto file = co_await data_.files.open(parent_path_, io::OpenMode::read_only);
    const qcow::Header parent = co_await qcow::read_header(*file, name);
    const bool is_made_on =
        parent.record && parent.record->image_uuid == image.header().record->parent_uuid;
    if (!is_made_on) {
      answer_.problem = fmt::format("parent \"{}\" is not the image this one was made on", name);
      co_return;
    }
    if (sidecar.disk.parent_root.empty()) co_return;
    const std::string text = co_await io::read_text(data_.files, sidecar_path(parent_path_));
    if (to_hex(sha256(text)) != sidecar.disk.parent_root) {
      answer_.problem = fmt::format("\"{}\" is not the parent that it was published on", name);
    }
  }

  io::Task<void> prove_manifest(const Sidecar& sidecar) {
    const std::string path = sums_path(path_);
    const Sha256 hash = co_await sha256_of_file(data_.files, path);
    if (to_hex(hash) != sidecar.disk.sums_sha256) {
      throw std::runtime_error("its manifest is not the one that it was published with");
    }
  }

  /// True when the second reader has read every stored cluster.
  io::Task<bool> prove_by_second(const qcow::Layer& image) {
    if (!readers_.second) co_return false;
    const auto sums = co_await qcow::SumsReader::open(data_.files, sums_path(path_));
    SecondReaderOptions options;
    options.processes = readers_.processes;
    options.patience = readers_.patience;
    options.damages_max = kDamagesMax;
    options.is_cancelled = [this] { return progress_->cancelled.load(); };
    options.on_progress = [this](uint64_t bytes) { return advance(bytes); };
    answer_.second_reader = co_await read_second(data_, image, *sums, std::move(options));
    co_return answer_.second_reader->covered_bytes == answer_.second_reader->stored_bytes;
  }

  /// Which clusters the image stores, and what it holds, if that is asked for.
  io::Task<void> prove_content(qcow::Layer& image, bool reads_data) {
    const auto sums = co_await qcow::SumsReader::open(data_.files, sums_path(path_));
    qcow::ContentOptions options;
    options.reads_data = reads_data;
    options.on_progress = [this](uint64_t bytes) { return advance(bytes); };
    options.damages_max = kDamagesMax;
    const qcow::ContentResult content = co_await qcow::check_content(data_, image, *sums, options);
    answer_.data_bytes = content.data_bytes;
    answer_.zero_bytes = content.zero_bytes;
    answer_.damaged_bytes = content.damaged_bytes;
    for (const qcow::DamagedRange& range : content.damaged) {
      answer_.damaged.push_back({range.offset, range.length, range.host.bytes, range.what});
    }
  }

  /// Keeps to the rate, waits while it is paused, and lets a cancellation through.
  io::Task<void> advance(uint64_t bytes) {
    progress_->read_bytes += bytes;
    co_await wait_for_turn();
    const uint64_t rate = progress_->bytes_per_second;
    if (rate == 0) co_return;
    const std::chrono::duration<double> takes(static_cast<double>(bytes) /
                                              static_cast<double>(rate));
    const io::SteadyTime turn =
        std::max(data_.clock.now(), next_read_) + std::chrono::duration_cast<io::Duration>(takes);
    next_read_ = turn;
    for (;;) {
      const io::SteadyTime now = data_.clock.now();
      if (now >= turn) co_return;
      co_await io::sleep(data_.executor, data_.clock, std::min<io::Duration>(turn - now, kPause));
      require_wanted();
    }
  }
  io::Task<void> wait_for_turn() {
    require_wanted();
    while (progress_->paused) {
      co_await io::sleep(data_.executor, data_.clock, kPause);
      require_wanted();
    }
  }
  void require_wanted() const {
    if (!progress_->cancelled) return;
    throw std::system_error(ECANCELED, std::generic_category(), "verify " + path_);
  }

  static constexpr io::Duration kPause = std::chrono::milliseconds(100);
  static constexpr size_t kDamagesMax = 1 << 16;
  const io::Runtime data_;
  const ContentReaders readers_;
  ImageVerification answer_;
  const std::string path_, parent_path_;
  const std::shared_ptr<VerifyProgress> progress_;
  io::SteadyTime next_read_{};
};

}  // namespace

io::Task<void> end_verification(io::Runtime home, std::shared_ptr<VerificationUnderWay> under_way) {
  under_way->progress->cancelled = true;
  if (under_way->task.state != VerificationState::running) co_return;
  co_await io::wait_for(home.executor, home.clock, under_way->ended, kEndPatience);
}

io::Task<void> end_scrub(io::Runtime home, Verifications known) {
  for (const auto& one : known) {
    if (one->task.state != VerificationState::running) continue;
    if (one->task.begun_by == VerificationOrigin::scrub) co_await end_verification(home, one);
  }
}

io::Task<ImageVerification> verify_image(io::Runtime data, ImageVerification verification,
                                         std::string image_path, std::string parent_path,
                                         ContentReaders readers,
                                         std::shared_ptr<VerifyProgress> progress) {
  ImageProof proof(data, std::move(verification), std::move(image_path), std::move(parent_path),
                   readers, std::move(progress));
  co_return co_await proof.run();
}

}  // namespace engine
