// SPDX-License-Identifier: Apache-2.0
#include "io/big_endian.h"
#include "qcow/chain/chain.h"
#include "qcow/image/create.h"
#include "tests/crash/harm.h"
#include "tests/crash/image_run.h"
#include "tests/crash/manifest.h"

namespace crash {

namespace {

io::Task<void> write_some(World& world, std::string path, qcow::ImageOptions options, Rng& rng,
                          int rounds, bool zeroes_too) {
  const auto image = co_await qcow::Image::open(world.runtime(), path, options);
  for (int i = 0; i < rounds; ++i) {
    Op op;
    op.offset = sector_down(rng.below(image->size()));
    op.length = std::min(kSector * rng.between(1, 40), image->size() - op.offset);
    op.tag = rng.next();
    if (zeroes_too && rng.one_in(2)) {
      co_await image->write_zeroes(op.offset, op.length, io::ZeroMode::may_unmap);
      continue;
    }
    const Bytes bytes = op.bytes();
    io::Buffer buffer = co_await world.buffers.acquire(bytes.size());
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    co_await image->write(op.offset, std::move(buffer));
  }
  if (!options.sums_path.empty()) {
    co_await image->seal();
    co_await image->publish_header({}, 1);
  }
  co_await image->close();
}

std::string parent_path_of(size_t i) { return "/d/p" + std::to_string(i) + ".qcow2"; }

qcow::Uuid uuid_of_parent(size_t i) {
  qcow::Uuid uuid{};
  uuid[0] = static_cast<std::byte>(i + 1);
  return uuid;
}

/// As another program may leave it: the disk was made larger, and the refcount table was not.
void grow_the_disk_alone(State& state, uint64_t size) {
  Bytes file = *state.find(ImageRun::kPath);
  const qcow::Geometry geometry{9, 6, size};
  file.resize(sector_up(file.size()));
  io::store_be<uint64_t>(file.data() + 24, size);
  io::store_be<uint32_t>(file.data() + 36, static_cast<uint32_t>(geometry.l1_entries()));
  state.put(ImageRun::kPath, std::move(file));
}

}  // namespace

qcow::CreateOptions create_options(const Shape& shape) {
  qcow::CreateOptions options;
  options.virtual_size = shape.small_table ? 256 << 10 : shape.size;
  options.cluster_bits = shape.cluster_bits;
  options.refcount_order = shape.refcount_order;
  if (!shape.parent_sizes.empty()) {
    options.parent.emplace();
    options.parent->name = "p" + std::to_string(shape.parent_sizes.size() - 1) + ".qcow2";
    if (shape.elides) options.parent->uuid = uuid_of_parent(shape.parent_sizes.size() - 1);
  }
  if (shape.publishes) options.image_uuid = uuid_of_parent(shape.parent_sizes.size());
  return options;
}

Prepared prepare_disk(uint64_t seed, const Shape& shape) {
  State empty;
  empty.directories = {"/", "/d"};
  World world(empty);
  world.files.faults.punch_works = false;  // what is freed keeps its bytes
  Rng rng(seed_of(seed, 3));
  qcow::ImageOptions options = shape.options;
  options.allocate_ahead = false;
  for (size_t i = 0; i < shape.parent_sizes.size(); ++i) {
    qcow::CreateOptions create;
    create.virtual_size = shape.parent_sizes[i];
    create.cluster_bits = shape.cluster_bits;
    create.refcount_order = shape.refcount_order;
    if (i > 0) {
      create.parent.emplace();
      create.parent->name = "p" + std::to_string(i - 1) + ".qcow2";
      if (shape.elides) create.parent->uuid = uuid_of_parent(i - 1);
    }
    qcow::ImageOptions of_parent = options;
    if (shape.elides) {
      create.image_uuid = uuid_of_parent(i);
      of_parent.sums_path = manifest_path(parent_path_of(i));
      of_parent.elide_by = manifest_path;
    }
    const int rounds = shape.elides ? 30 : 12;
    world.scheduler.run(qcow::create(world.runtime(), parent_path_of(i), create));
    world.scheduler.run(write_some(world, parent_path_of(i), of_parent, rng, rounds, true));
  }
  Bytes sent_below;
  if (shape.elides) {
    sent_below = read_disk(world, parent_path_of(shape.parent_sizes.size() - 1));
    Rng harming(seed_of(seed, 16));
    const std::string other = manifest_path(parent_path_of(0));
    for (size_t i = shape.parent_sizes.size(); i-- > 0;) {
      harm(world, parent_path_of(i), other, shape.harm, harming);
    }
  }
  if (shape.made_in_run) return {world.disk.live(), std::move(sent_below)};
  world.scheduler.run(qcow::create(world.runtime(), ImageRun::kPath, create_options(shape)));
  if (shape.used_before) {
    world.scheduler.run(write_some(world, ImageRun::kPath, options, rng, 12, false));
    world.scheduler.run(write_some(world, ImageRun::kPath, options, rng, 16, true));
  }
  State state = world.disk.live();
  if (shape.small_table) grow_the_disk_alone(state, shape.size);
  return {std::move(state), std::move(sent_below)};
}

/// What the op writes.
Bytes ImageRun::bytes_of(const Op& op) const {
  if (!op.again) return op.bytes();
  Bytes bytes(op.length);
  const uint64_t from = std::min<uint64_t>(*op.again, sent_below_.size());
  const uint64_t end = std::min<uint64_t>(*op.again + op.length, sent_below_.size());
  std::copy_n(sent_below_.begin() + static_cast<ptrdiff_t>(from), end - from, bytes.begin());
  if (op.almost) bytes[op.tag % bytes.size()] ^= std::byte{1};
  return bytes;
}

Bytes read_disk(World& world, const std::string& path) {
  const auto read = [&]() -> io::Task<Bytes> {
    qcow::ChainOptions options;
    const auto chain = co_await qcow::Chain::open(world.runtime(), path, options);
    Bytes content(chain->size());
    co_await chain->read(0, content);
    co_return content;
  };
  return world.scheduler.run(read());
}

}  // namespace crash
