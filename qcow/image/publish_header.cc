// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/publish_header.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow/chain/layer.h"
#include "qcow/chain/locks.h"
#include "qcow/format/aligned_bytes.h"

namespace qcow {

io::Task<Header> publish_header(io::File& file, std::string image_name, Header header,
                                Publication publication) {
  if (!header.record) throw FormatError(image_name, "has no varve record");
  header.autoclear_features |= kAutoclearSeal;
  header.record->flags |= Record::kFlagPublished;
  header.record->manifest_hash = publication.manifest_hash;
  header.record->publish_time = publication.time;
  const std::vector<std::byte> cluster = header.encode(image_name);
  const uint64_t used = std::min<uint64_t>(
      round_up(header.encoded_bytes(), AlignedBytes::kAlignment), cluster.size());
  AlignedBytes bytes(used);
  std::copy_n(cluster.begin(), used, bytes.data());
  co_await file.write(0, bytes.bytes());
  co_await file.sync();
  co_return header;
}

io::Task<void> publish_sealed(io::Runtime runtime, std::string path, std::string image_uuid,
                              Publication publication) {
  const std::string name = image_name_of(path);
  const auto file = co_await runtime.files.open(path, io::OpenMode::read_write);
  const ImageLock lock =
      co_await ImageLock::acquire_patiently(runtime, *file, LockRole::writer, name);
  Header header = co_await read_header(*file, name);
  if (!header.record ||
      (!image_uuid.empty() && uuid_text(header.record->image_uuid) != image_uuid)) {
    throw FormatError(name, fmt::format("is not the image {}", image_uuid));
  }
  // Its data were durable when it was sealed, but the process that knew it is gone.
  co_await file->sync();
  co_await publish_header(*file, name, std::move(header), publication);
}

}  // namespace qcow
