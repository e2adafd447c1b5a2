#include <gtest/gtest.h>

#include "nbd/export_table.h"
#include "nbd/meta_context.h"
#include "nbd/refusal.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

// The small parts between codec and session.

namespace nbd {
namespace {

TEST(Refusals, NameNoServerPath) {  // H12
  EXPECT_EQ(without_paths("write /srv/backup/vm/disk0.qcow2 @65536+4096: No space"),
            "write disk0.qcow2 @65536+4096: No space");
  EXPECT_EQ(without_paths("open \"/a/b c\": no"), "open \"b c\": no");
  EXPECT_EQ(without_paths("export \"vm/disk-0@p\" 3/4"), "export \"vm/disk-0@p\" 3/4");
  EXPECT_EQ(without_paths(""), "");
  EXPECT_EQ(without_paths("/"), "");
}

TEST(Refusals, ComeFromWhateverWasThrown) {
  EXPECT_EQ(refusal_for(std::make_exception_ptr(std::bad_alloc())).error, WireError::enomem);
  EXPECT_EQ(refusal_for(std::make_exception_ptr(std::runtime_error("bad /x/y"))).text, "bad y");
  EXPECT_EQ(refusal_for(std::make_exception_ptr(7)).error, WireError::eio);
}

class Parts : public support::RingTest {
 protected:
  std::shared_ptr<Export> make(const std::string& name) {
    return Export::make({.name = name}, device_, runtime());
  }
  support::MemoryDevice device_{4096};
  ExportTable table_;
};

TEST_F(Parts, TableKnowsNamesAndAliases) {
  const auto one = make("one"), two = make("two");
  table_.add(one);
  table_.add(two);
  table_.add_alias("latest", one);
  EXPECT_THROW(table_.add(make("one")), std::system_error);
  EXPECT_THROW(table_.add(make("latest")), std::system_error);
  EXPECT_THROW(table_.add_alias("two", one), std::system_error);
  EXPECT_EQ(table_.find("latest"), one);
  table_.add_alias("latest", two);
  EXPECT_EQ(table_.find("latest"), two);
  EXPECT_EQ(table_.list().size(), 2u);
  EXPECT_FALSE(table_.remove(*make("two")));
  EXPECT_TRUE(table_.remove(*two));
  EXPECT_EQ(table_.find("two"), nullptr);
  EXPECT_EQ(table_.find("latest"), nullptr);
}

TEST_F(Parts, ExportNamesAreCheckedWhenMade) {  // H5
  EXPECT_THROW(make(std::string(4097, 'a')), ProtocolError);
  EXPECT_THROW(make("\xff"), ProtocolError);
}

TEST_F(Parts, BlockSizeStaysWithinWhatClientsTake) {  // B2
  support::MemoryDevice small(4096, 512), large(4096, 4 << 20);
  EXPECT_EQ(Export::make({.name = "s"}, small, runtime())->preferred_block_size(), 4096u);
  EXPECT_EQ(Export::make({.name = "l"}, large, runtime())->preferred_block_size(), 2u << 20);
}

}  // namespace
}  // namespace nbd
