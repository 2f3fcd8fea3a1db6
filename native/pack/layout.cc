#include "pack/layout.h"

namespace pocketlm {
namespace {

// name, bytes of 32 columns (float: 1 column), group, bytes of a group's scales, bytes of a super-block's scales
constexpr LayoutFacts kFacts[kLayoutCount] = {
    {"F32", 64, 0, 0, 0},       {"F16", 32, 0, 0, 0},       {"BF16", 32, 0, 0, 0},
    {"Q4_0", 256, 32, 32, 0},   {"Q4_1", 256, 32, 64, 0},   {"Q5_0", 320, 32, 32, 0},
    {"Q5_1", 320, 32, 64, 0},   {"Q8_0", 512, 32, 32, 0},   {"Q2_K", 128, 16, 16, 64},
    {"Q3_K", 192, 16, 16, 32},  {"Q4_K", 256, 32, 32, 64},  {"Q5_K", 320, 32, 32, 64},
    {"Q6_K", 384, 16, 16, 32},  {"Ternary", 128, 256, 0, 32},
};

// Offsets of one panel's streams.
struct Streams {
  size_t scales, supers, bytes;
};

Streams streams(Layout layout, int64_t cols) {
  const LayoutFacts& facts = layout_facts(layout);
  if (is_float(layout)) return {0, 0, align_up(size_t(cols * facts.block_bytes))};
  require(cols % kBlock == 0, "the columns of a quantized matrix must be a multiple of 32");
  require(facts.super_bytes == 0 || cols % kSuper == 0, "the columns of a K-type matrix must be a multiple of 256");
  const size_t scales = size_t(cols / kBlock * facts.block_bytes);
  const size_t supers = align_up(scales + size_t(cols / facts.group * facts.group_bytes));
  return {scales, supers, align_up(supers + size_t(cols / kSuper * facts.super_bytes))};
}

}  // namespace

const LayoutFacts& layout_facts(Layout layout) { return kFacts[int(layout)]; }

// Out of line on purpose: an inline one could be emitted as a weak symbol by a translation unit that is compiled
// for a newer instruction set, and then be used by everyone.
const std::byte* PackedMatrix::panel(int64_t i) const { return data.data() + size_t(i) * panel_bytes; }
std::byte* PackedMatrix::panel(int64_t i) { return data.data() + size_t(i) * panel_bytes; }
size_t PackedMatrix::bytes() const { return size_t(panels) * panel_bytes; }
bool PackedMatrix::planned() const { return data.size() == 0; }

PackedMatrix plan_packed(Layout layout, int64_t rows, int64_t cols) {
  require(rows > 0 && cols > 0, "a packed matrix must have rows and columns");
  const Streams parts = streams(layout, cols);
  PackedMatrix matrix;
  matrix.layout = layout;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.panels = (rows + kPanel - 1) / kPanel;
  matrix.scales_offset = parts.scales;
  matrix.supers_offset = parts.supers;
  matrix.panel_bytes = parts.bytes;
  checked_bytes(size_t(matrix.panels), matrix.panel_bytes);
  return matrix;
}

PackedMatrix make_packed(Layout layout, int64_t rows, int64_t cols) {
  PackedMatrix matrix = plan_packed(layout, rows, cols);
  matrix.data = Buffer::on_large_pages(matrix.bytes());
  return matrix;
}

}  // namespace pocketlm
