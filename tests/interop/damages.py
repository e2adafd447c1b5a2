# SPDX-License-Identifier: Apache-2.0
"""Ways to damage a QCOW2 image, each with the judgement that it deserves.

A damage takes an image whose guest clusters 0 to 3 and 160 to 161 hold data and 320 to 321 are zero.
"""

from harness.qcow2_bytes import COMPRESSED, COPIED, ZERO

CLEAN, LEAKS, ERRORS, CANNOT_OPEN = "clean", "leaks", "errors", "cannot open"
FAR = 0x7000_0000

DAMAGES = []


def damage(judgement):
    def keep(function):
        DAMAGES.append((function.__name__, judgement, function))
        return function

    return keep


# ---- what is no damage

@damage(CLEAN)
def nothing(_):
    pass


@damage(CLEAN)
def an_unknown_compatible_bit(image):
    image.set("compatible", 1 << 40)


@damage(CLEAN)
def an_unknown_autoclear_bit(image):
    image.set("autoclear", 1 << 40)


@damage(CLEAN)
def the_corrupt_bit(image):
    image.set("incompatible", 2)


@damage(CLEAN)
def the_dirty_bit(image):
    image.set("incompatible", 1)


@damage(CLEAN)
def a_tail_that_nothing_owns(image):
    image.truncate(image.end() + 5 * image.cluster)


@damage(CLEAN)
def a_refcount_block_for_nothing(image):
    block = image.free_host_cluster()
    image.set_refcount(block, 1)
    image.set_word(image.refcount_table + 8, block)


@damage(CLEAN)
def a_cluster_with_the_zero_flag_and_a_place(image):
    image.set_entry(1, image.entry(1) | ZERO)


@damage(CLEAN)
def a_header_of_104_bytes(image):
    tail = image.read(112, 2000)
    image.set("header_length", 104)
    image.write(104, tail + bytes(8))
    if image.get("backing_offset"):
        image.set("backing_offset", image.get("backing_offset") - 8)


# ---- space that is lost

@damage(LEAKS)
def an_entry_is_lost(image):
    image.set_entry(1, 0)


@damage(LEAKS)
def an_entry_becomes_a_zero_flag(image):
    image.set_entry(2, ZERO)


@damage(LEAKS)
def a_table_is_lost(image):
    image.set_word(image.l1, 0)


@damage(LEAKS)
def a_free_cluster_has_a_refcount(image):
    image.set_refcount(image.free_host_cluster(), 1)


@damage(LEAKS)
def a_free_cluster_has_a_high_refcount(image):
    image.set_refcount(image.free_host_cluster(), 0xFFFF)


# ---- refcounts and flags

@damage(ERRORS)
def a_refcount_of_zero(image):
    image.set_refcount(image.host(1), 0)


@damage(ERRORS)
def a_refcount_of_two_beside_the_copied_flag(image):
    image.set_refcount(image.host(1), 2)


@damage(ERRORS)
def the_headers_refcount_is_zero(image):
    image.set_refcount(0, 0)


@damage(ERRORS)
def the_l1_tables_refcount_is_zero(image):
    image.set_refcount(image.l1, 0)


@damage(ERRORS)
def the_l2_tables_refcount_is_zero(image):
    image.set_refcount(image.l2, 0)


@damage(ERRORS)
def the_refcount_blocks_own_refcount_is_zero(image):
    image.set_refcount(image.refcount_block, 0)


@damage(ERRORS)
def a_block_of_zeroes(image):
    image.write(image.refcount_block, bytes(image.cluster))


@damage(ERRORS)
def no_copied_flag_in_l2(image):
    image.set_entry(1, image.entry(1) & ~COPIED)


@damage(ERRORS)
def no_copied_flag_in_l1(image):
    image.set_word(image.l1, image.word(image.l1) & ~COPIED)


# ---- two owners

@damage(ERRORS)
def two_guest_clusters_share_one_place(image):
    image.set_entry(1, image.entry(0))


@damage(ERRORS)
def data_lies_on_the_l2_table(image):
    image.set_entry(1, image.l2 | COPIED)


@damage(ERRORS)
def data_lies_on_the_l1_table(image):
    image.set_entry(1, image.l1 | COPIED)


@damage(ERRORS)
def data_lies_on_the_refcount_block(image):
    image.set_entry(1, image.refcount_block | COPIED)


@damage(ERRORS)
def data_lies_on_the_refcount_table(image):
    image.set_entry(1, image.refcount_table | COPIED)


# ---- entries that lead nowhere

@damage(ERRORS)
def data_beyond_the_end(image):
    image.set_entry(1, FAR | COPIED)


@damage(ERRORS)
def data_right_behind_the_end(image):
    image.set_entry(1, image.end() | COPIED)


@damage(ERRORS)
def an_l2_table_beyond_the_end(image):
    image.set_word(image.l1, FAR | COPIED)


@damage(ERRORS)
def the_file_lost_its_second_half(image):
    image.truncate(image.bytes() // 2 // image.cluster * image.cluster)


@damage(ERRORS)
def a_compressed_cluster_beyond_the_end(image):
    image.set_entry(1, COMPRESSED | FAR)


@damage(ERRORS)
def a_compressed_cluster_with_the_copied_flag(image):
    image.set_entry(1, COMPRESSED | COPIED | image.host(1))


# ---- bits that have no meaning

@damage(ERRORS)
def a_reserved_bit_in_l2(image):
    image.set_entry(1, image.entry(1) | 2)


@damage(ERRORS)
def a_high_reserved_bit_in_l2(image):
    image.set_entry(1, image.entry(1) | 1 << 57)


@damage(ERRORS)
def a_reserved_bit_in_an_empty_entry(image):
    image.set_entry(1000, 1 << 58)


@damage(ERRORS)
def a_reserved_bit_in_l1(image):
    image.set_word(image.l1, image.word(image.l1) | 1)


@damage(ERRORS)
def data_that_is_not_aligned(image):
    image.set_entry(1, image.entry(1) + 512)


@damage(ERRORS)
def an_l2_table_that_is_not_aligned(image):
    image.set_word(image.l1, image.word(image.l1) + 512)


@damage(ERRORS)
def a_refcount_block_that_is_not_aligned(image):
    image.set_word(image.refcount_table + 8, image.refcount_block + 512)


@damage(ERRORS)
def a_refcount_block_beyond_the_end(image):
    image.set_word(image.refcount_table + 8, FAR)


@damage(ERRORS)
def a_refcount_block_twice(image):
    image.set_word(image.refcount_table + 8, image.refcount_block)


@damage(ERRORS)
def no_refcount_block(image):
    image.set_word(image.refcount_table, 0)


# ---- no image that anybody opens

@damage(CANNOT_OPEN)
def another_magic(image):
    image.set("magic", 0x514649FA)


@damage(CANNOT_OPEN)
def an_empty_file(image):
    image.truncate(0)


@damage(CANNOT_OPEN)
def a_file_that_ends_in_its_header(image):
    image.truncate(60)


@damage(CANNOT_OPEN)
def version_9(image):
    image.set("version", 9)


@damage(CANNOT_OPEN)
def clusters_of_256_bytes(image):
    image.set("cluster_bits", 8)


@damage(CANNOT_OPEN)
def clusters_of_4_mib(image):
    image.set("cluster_bits", 22)


@damage(CANNOT_OPEN)
def an_encryption_nobody_knows(image):
    image.set("crypt_method", 9)


@damage(CANNOT_OPEN)
def an_unknown_incompatible_bit(image):
    image.set("incompatible", 1 << 50)


@damage(CANNOT_OPEN)
def a_header_that_is_too_short(image):
    image.set("header_length", 96)


@damage(CANNOT_OPEN)
def a_header_longer_than_a_cluster(image):
    image.set("header_length", 1 << 20)


@damage(CANNOT_OPEN)
def an_l1_table_that_is_too_large(image):
    image.set("l1_size", 1 << 30)


@damage(CANNOT_OPEN)
def an_l1_table_that_is_too_small(image):
    image.set("l1_size", 0)


@damage(CANNOT_OPEN)
def an_l1_table_that_is_not_aligned(image):
    image.set("l1_offset", image.l1 + 512)


@damage(CANNOT_OPEN)
def a_refcount_table_that_is_not_aligned(image):
    image.set("refcount_table_offset", image.refcount_table + 512)


@damage(CANNOT_OPEN)
def a_refcount_table_that_is_too_large(image):
    image.set("refcount_table_clusters", 1 << 20)


@damage(CANNOT_OPEN)
def refcounts_of_128_bits(image):
    image.set("refcount_order", 7)


@damage(CANNOT_OPEN)
def a_compression_nobody_knows(image):
    image.set("incompatible", 8)
    image.set("compression_type", 7)


@damage(CANNOT_OPEN)
def a_backing_name_that_is_too_long(image):
    image.set("backing_offset", 512)
    image.set("backing_length", 2000)


@damage(CANNOT_OPEN)
def a_backing_name_behind_the_first_cluster(image):
    image.set("backing_offset", image.cluster + 8)
    image.set("backing_length", 8)


@damage(CANNOT_OPEN)
def an_extension_longer_than_its_cluster(image):
    image.write(image.get("header_length") + 4, b"\x7f\xff\xff\xff")


@damage(CANNOT_OPEN)
def a_parent_that_is_missing(image):
    image.write(40000, b"missing.qcow2")
    image.set("backing_offset", 40000)
    image.set("backing_length", 13)
