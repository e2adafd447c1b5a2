#include "io/big_endian.h"
#include "qcow/chain/chain.h"
#include "qcow/image/create.h"
#include "tests/crash/image_run.h"

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
  co_await image->close();
}

std::string parent_path_of(size_t i) { return "/d/p" + std::to_string(i) + ".qcow2"; }

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
  }
  return options;
}

State prepare_disk(uint64_t seed, const Shape& shape) {
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
    }
    world.scheduler.run(qcow::create(world.runtime(), parent_path_of(i), create));
    world.scheduler.run(write_some(world, parent_path_of(i), options, rng, 12, true));
  }
  if (shape.made_in_run) return world.disk.live();
  world.scheduler.run(qcow::create(world.runtime(), ImageRun::kPath, create_options(shape)));
  if (shape.used_before) {
    world.scheduler.run(write_some(world, ImageRun::kPath, options, rng, 12, false));
    world.scheduler.run(write_some(world, ImageRun::kPath, options, rng, 16, true));
  }
  State state = world.disk.live();
  if (shape.small_table) grow_the_disk_alone(state, shape.size);
  return state;
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
