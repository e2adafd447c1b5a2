// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/own_image.h"

#include "qcow/chain/layer.h"
#include "qcow/chain/sums_reader.h"
#include "qcow/format/format_error.h"

namespace engine {

io::Task<NamedFile> look_at_image(io::FileSystem& files, std::string path, std::string image_uuid) {
  const auto status = co_await files.status(path, false);
  if (!status) co_return NamedFile::missing;
  if (status->kind != io::FileKind::file) co_return NamedFile::of_another;
  const auto file = co_await files.open(path, io::OpenMode::read_only);
  const std::string name = qcow::image_name_of(path);
  const qcow::Header::DecodeOptions options{.salvage = true};
  try {
    const qcow::Header header = co_await qcow::read_header(*file, name, options);
    if (image_uuid.empty()) co_return NamedFile::ours;
    const bool same = header.record && qcow::uuid_text(header.record->image_uuid) == image_uuid;
    co_return same ? NamedFile::ours : NamedFile::of_another;
  } catch (const qcow::FormatError&) {
    co_return NamedFile::unreadable;
  }
}

io::Task<NamedFile> look_at_manifest(io::FileSystem& files, std::string path,
                                     std::string image_uuid) {
  const auto status = co_await files.status(path, false);
  if (!status) co_return NamedFile::missing;
  if (status->kind != io::FileKind::file) co_return NamedFile::of_another;
  try {
    const auto sums = co_await qcow::SumsReader::open(files, path);
    const bool same = qcow::uuid_text(sums->footer().image_uuid) == image_uuid;
    co_return same ? NamedFile::ours : NamedFile::of_another;
  } catch (const qcow::FormatError&) {
    co_return NamedFile::unreadable;
  }
}

}  // namespace engine
