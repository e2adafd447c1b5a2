#include "qcow/image/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "io/failure.h"
#include "io/log.h"
#include "io/planted_bug.h"
#include "qcow/image/image_parts.h"

namespace qcow {

Image::Image(io::Runtime runtime, std::string path, ImageOptions options,
             std::unique_ptr<io::File> file)
    : runtime_(runtime),
      path_(std::move(path)),
      name_(image_name_of(path_)),
      options_(std::move(options)),
      file_(std::move(file)),
      ranges_(runtime.executor),
      budget_(runtime.executor,
              std::max<uint64_t>(options_.write_behind_bytes, 2 * io::BufferPool::kBufferBytesMax)),
      completed_(runtime.executor,
                 std::max(options_.partial_bytes, uint64_t{1} << kClusterBitsMax)),
      relieved_(runtime.executor),
      changed_(runtime.executor),
      urgent_(runtime.executor),
      commit_ended_(runtime.executor) {}

Image::~Image() { assert(background_.running() == 0 && "close() or abandon() an image first"); }

uint32_t Image::preferred_block_size() const {
  return static_cast<uint32_t>(std::clamp<uint64_t>(geometry_.cluster_bytes(), 4096, 2 << 20));
}

ImageCounters Image::counters() const {
  ImageCounters counters = counters_;
  counters.file_bytes = geometry_.host_offset(allocator_->end_cluster()).bytes;
  return counters;
}

void Image::require_open(const char* verb, uint64_t offset, uint64_t length) const {
  if (failure_) std::rethrow_exception(failure_);
  if (state_ != State::open) throw io::failure(verb, name_, offset, length, EPERM);
}

/// The first failure is final: nothing that came after the last good commit can be trusted.
void Image::fail(std::exception_ptr failure) noexcept {
  if (failure_) return;
  failure_ = std::move(failure);
  write_behind_->abandon();
  changed_.set();
  urgent_.set();
  for (io::Event* const event : {&commit_ended_, &relieved_}) {
    event->set();
    event->reset();
  }
  if (state_ != State::open || !options_.on_failure) return;
  try {
    options_.on_failure(failure_);
  } catch (const std::exception& untold) {
    io::log(io::LogLevel::error, "qcow: the failure of {} could not be reported: {}", name_,
            untold.what());
  }
}

/// Makes a failure final, unless it refused the request before anything was changed.
void Image::refuse_or_fail(std::exception_ptr failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const FormatError&) {  // a corrupt entry spoils its own range only
  } catch (const NoSpace&) {
    if (options_.full_is_final) fail(failure);
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    if (code != EPERM && code != ENOTSUP) fail(failure);
  } catch (...) {
    fail(failure);
  }
}

/// Something is there to commit.
void Image::changed(uint64_t data_bytes) {
  if (data_bytes > 0) data_written_ = true;
  bytes_since_commit_ += data_bytes;
  changed_.set();
  if (bytes_since_commit_ >= options_.commit_bytes) urgent_.set();
}

}  // namespace qcow
