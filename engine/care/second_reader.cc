// SPDX-License-Identifier: Apache-2.0
#include "engine/care/second_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>

#include "engine/care/reader_lines.h"
#include "io/outcome.h"
#include "io/task_scope.h"

namespace engine {
namespace {

constexpr uint64_t kRequestBytes = 1 << 20;
constexpr io::Duration kWatchInterval = std::chrono::milliseconds(50);

/// LQ10: what the packaged libqcow reads wrongly or not at all; "" for what it reads right.
std::string why_not(const qcow::Header& header) {
  if ((header.incompatible_features & ~qcow::kIncompatibleDirty) != 0) return "incompatible bits";
  if ((header.compatible_features & ~qcow::kCompatibleLazyRefcounts) != 0) return "compatible bits";
  if (header.crypt_method != 0) return "encryption";
  if (header.virtual_size == 0) return "size 0";
  const uint32_t length = header.header_length;
  if (header.version >= 3 && length != 104 && length != 112) return "header length";
  return "";
}

/// The process does not do its part. The text says what it did; "": it is no more.
class ReaderFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The lines of a stream, one after the other. Memory: one piece and one line.
class Lines {
 public:
  explicit Lines(io::Stream& stream) : stream_(stream) {}

  /// Valid until the next call. Nothing at the end of the stream. Throws ReaderFailed for a line
  /// that is too long, and what receiving throws.
  io::Task<std::optional<std::string_view>> next() {
    for (;;) {
      const std::string_view rest = std::string_view(text_).substr(at_);
      const size_t end = rest.find('\n');
      if (end != std::string_view::npos) {
        at_ += end + 1;
        co_return rest.substr(0, end);
      }
      if (rest.size() > kReaderLineMax) throw ReaderFailed("said what no reader says");
      text_.erase(0, at_);
      at_ = 0;
      const iovec into{piece_.data(), piece_.size()};
      const size_t got = co_await stream_.receive({&into, 1});
      if (got == 0) co_return std::nullopt;
      text_.append(piece_.data(), got);
    }
  }

 private:
  io::Stream& stream_;
  std::string text_;
  size_t at_ = 0;
  std::array<char, 16384> piece_{};
};

class SecondRead {
 public:
  SecondRead(io::Runtime data, const qcow::Layer& image, qcow::SumsReader& sums,
             SecondReaderOptions options)
      : data_(data),
        image_(image),
        sums_(sums),
        options_(std::move(options)),
        cluster_bytes_(image.geometry().cluster_bytes()),
        is_done_(data.executor) {}

  io::Task<SecondReading> run() {
    co_await count_stored();
    answer_.problem = why_not_used();
    if (answer_.problem.empty() && answer_.stored_bytes > 0) co_await use_process();
    co_return std::move(answer_);
  }

 private:
  io::Task<void> count_stored() {
    for (uint64_t l1_index = 0; l1_index < image_.geometry().l1_entries(); ++l1_index) {
      const std::optional<qcow::SumBlock> block = co_await sums_.block(l1_index);
      if (block) answer_.stored_bytes += block->sums.size() * cluster_bytes_;
    }
  }

  std::string why_not_used() const {
    if (options_.processes == nullptr) return "this varve was built without libqcow";
    const std::string cause = why_not(image_.header());
    if (cause.empty()) return "";
    return fmt::format("libqcow does not read such images right ({})", cause);
  }

  io::Task<void> use_process() {
    try {
      process_ = options_.processes->start(data_.executor, image_.path(), cluster_bytes_);
    } catch (const std::system_error& failure) {
      answer_.problem = fmt::format("libqcow cannot be started: {}", failure.what());
      co_return;
    }
    const auto body = [this](io::TaskScope& scope) -> io::Task<void> {
      scope.spawn(watch());
      io::Outcome<> read = co_await io::attempt([this] { return converse(); });
      is_done_.set();
      read.take();
    };
    io::Outcome<> read = co_await io::attempt([&] { return io::run_scoped(body); });
    process_->kill();  // nothing more is wanted of it; one that has died keeps its own end
    const std::string end = co_await process_->ended();
    process_.reset();
    const std::string cause = cause_of(std::move(read), end);
    if (!cause.empty() && options_.is_cancelled()) co_await options_.on_progress(0);
    if (cause.empty()) co_return;
    answer_.problem = fmt::format("libqcow {}; it had read {} of {} bytes", cause,
                                  answer_.covered_bytes, answer_.stored_bytes);
  }

  /// What the process did wrong, "" for nothing. Passes on what is not its fault.
  std::string cause_of(io::Outcome<> read, const std::string& end) const {
    try {
      read.take();
      return "";
    } catch (const ReaderFailed& failure) {
      const std::string said = failure.what();
      if (!said.empty()) return said;
    }
    if (!is_late_) return end;
    const std::chrono::duration<double> waited = options_.patience;
    return fmt::format("gave no answer for {:g} s and was ended", waited.count());
  }

  /// Ends a process that lets its answer be waited for, and one that nobody waits for any more.
  io::Task<void> watch() {
    for (;;) {
      const bool is_over =
          co_await io::wait_for(data_.executor, data_.clock, is_done_, kWatchInterval);
      if (is_over) co_return;
      is_late_ = waiting_since_ && data_.clock.now() - *waiting_since_ > options_.patience;
      if (is_late_ || options_.is_cancelled()) break;
    }
    process_->kill();
  }

  io::Task<void> converse() {
    Lines lines(process_->stream());
    const ReaderLine first = co_await next_line(lines);
    if (first.kind == ReaderLine::Kind::failed) {
      throw ReaderFailed("cannot open the image: " + first.text);
    }
    if (first.kind != ReaderLine::Kind::ready) throw ReaderFailed("said what it was not asked");
    for (uint64_t l1_index = 0; l1_index < image_.geometry().l1_entries(); ++l1_index) {
      const std::optional<qcow::SumBlock> block = co_await sums_.block(l1_index);
      if (block) co_await read_block(lines, *block);
    }
    note_unread();
  }

  io::Task<void> read_block(Lines& lines, const qcow::SumBlock& block) {
    const qcow::Geometry& geometry = image_.geometry();
    const qcow::GuestCluster first = geometry.table_start(block.l1_index);
    const uint64_t per_request = std::max<uint64_t>(1, kRequestBytes / cluster_bytes_);
    size_t sum = 0;
    for (const qcow::SumRun& run : block.runs) {
      if (run.kind != qcow::SumKind::data) continue;
      for (uint64_t at = run.first; at < run.end(); at += per_request) {
        const uint64_t count = std::min<uint64_t>(per_request, run.end() - at);
        const ReaderRequest request{geometry.start_of(first + at).bytes, count};
        co_await read_clusters(lines, request, std::span(block.sums).subspan(sum, count));
        sum += count;
      }
    }
  }

  io::Task<void> read_clusters(Lines& lines, ReaderRequest request,
                               std::span<const qcow::Sum> sums) {
    const std::string text = encode(request);
    const iovec from = io::as_iovec(std::as_bytes(std::span(text)));
    try {
      co_await process_->stream().send({&from, 1});
    } catch (const std::system_error&) {
      throw ReaderFailed("");
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      const uint64_t offset = request.offset + i * cluster_bytes_;
      const ReaderLine line = co_await next_line(lines);
      const bool is_sum = line.kind == ReaderLine::Kind::sum;
      if ((!is_sum && line.kind != ReaderLine::Kind::unread) || line.offset != offset) {
        throw ReaderFailed("said what it was not asked");
      }
      note(line, sums[i]);
    }
    co_await options_.on_progress(request.count * cluster_bytes_);
  }

  io::Task<ReaderLine> next_line(Lines& lines) {
    waiting_since_ = data_.clock.now();
    std::optional<std::string_view> text;
    try {
      text = co_await lines.next();
    } catch (const std::system_error&) {  // no more than its end
    }
    waiting_since_.reset();
    if (!text) throw ReaderFailed("");
    std::optional<ReaderLine> line = decode_reader_line(*text);
    if (!line) throw ReaderFailed("said what no reader says");
    co_return *std::move(line);
  }

  void note(const ReaderLine& line, const qcow::Sum& sum) {
    if (line.kind == ReaderLine::Kind::unread) {
      if (unread_bytes_ == 0) first_unread_ = fmt::format("{}: {}", line.offset, line.text);
      unread_bytes_ += cluster_bytes_;
      return;
    }
    answer_.covered_bytes += cluster_bytes_;
    if (line.sum == sum) return;
    answer_.damaged_bytes += cluster_bytes_;
    auto& damaged = answer_.damaged;
    if (!damaged.empty() && damaged.back().offset + damaged.back().length == line.offset) {
      damaged.back().length += cluster_bytes_;
    } else if (damaged.size() < options_.damages_max) {
      damaged.push_back({line.offset, cluster_bytes_, 0, "reads differently"});
    }
  }

  void note_unread() {
    if (unread_bytes_ == 0) return;
    answer_.problem = fmt::format("libqcow cannot read {} bytes, the first at guest offset {}",
                                  unread_bytes_, first_unread_);
  }

  const io::Runtime data_;
  const qcow::Layer& image_;
  qcow::SumsReader& sums_;
  const SecondReaderOptions options_;
  const uint64_t cluster_bytes_;
  SecondReading answer_;
  std::unique_ptr<ReaderProcess> process_;
  std::optional<io::SteadyTime> waiting_since_;
  bool is_late_ = false;
  uint64_t unread_bytes_ = 0;
  std::string first_unread_;
  io::Event is_done_;
};

}  // namespace

io::Task<SecondReading> read_second(io::Runtime data, const qcow::Layer& image,
                                    qcow::SumsReader& sums, SecondReaderOptions options) {
  SecondRead read(data, image, sums, std::move(options));
  co_return co_await read.run();
}

}  // namespace engine
