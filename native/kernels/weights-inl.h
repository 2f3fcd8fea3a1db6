// How the kernels see packed weights: what a layout means, its blocks as they lie in memory, and blocks unpacked to
// bytes. Included like matmul-inl.h.
#pragma once

#include "kernels/kernels.h"

namespace pocketlm {
namespace {

template <int kIndex>
struct Index {
  static constexpr int value = kIndex;
};

// fn(Index<0>), ..., fn(Index<kCount - 1>): loops whose arrays must live in registers.
template <int kCount, int kFrom = 0, class Fn>
POCKETLM_INLINE void unroll(const Fn& fn) {
  if constexpr (kFrom < kCount) {
    fn(Index<kFrom>{});
    unroll<kCount, kFrom + 1>(fn);
  }
}

enum class Scales { Half, HalfPair, Super16, Super16Pair, Super32Pair, SuperOnly };

// What a layout means; offset and affine as in pack/layout.h.
template <int kBitsOf, int kGroupOf, int kOffsetOf, Scales kScalesOf>
struct Format {
  static constexpr int kBits = kBitsOf;
  static constexpr int kMax = (1 << kBits) - 1;
  static constexpr int kGroup = kGroupOf;
  static constexpr int kGroups = 32 / kGroup;  // of a block
  static constexpr int kOffset = kOffsetOf;
  static constexpr Scales kScales = kScalesOf;
  static constexpr bool kAffine =
      kScales == Scales::HalfPair || kScales == Scales::Super16Pair || kScales == Scales::Super32Pair;
  static constexpr bool kPairedSupers = kScales == Scales::Super16Pair || kScales == Scales::Super32Pair;
  static constexpr int kGroupBytes = kScales == Scales::SuperOnly                                      ? 0
                                     : kScales == Scales::Super16 || kScales == Scales::Super16Pair    ? 16
                                     : kScales == Scales::HalfPair                                     ? 64
                                                                                                       : 32;
};

using FormatQ4_0 = Format<4, 32, 8, Scales::Half>;
using FormatQ4_1 = Format<4, 32, 0, Scales::HalfPair>;
using FormatQ5_0 = Format<5, 32, 16, Scales::Half>;
using FormatQ5_1 = Format<5, 32, 0, Scales::HalfPair>;
using FormatQ8_0 = Format<8, 32, isa::kByteOffset, Scales::Half>;
using FormatQ2_K = Format<2, 16, 0, Scales::Super16Pair>;
using FormatQ3_K = Format<3, 16, 4, Scales::Super16>;
using FormatQ4_K = Format<4, 32, 0, Scales::Super32Pair>;
using FormatQ5_K = Format<5, 32, 0, Scales::Super32Pair>;
using FormatQ6_K = Format<6, 16, 32, Scales::Super16>;
using FormatTernary = Format<2, 32, 1, Scales::SuperOnly>;

// A block of a packed panel, unpacked as it is used.
template <class Fmt>
struct PackedBlock {
  const std::byte* codes;
  const std::byte* scales;
  const std::byte* supers;

  template <int kVector>
  POCKETLM_INLINE isa::Codes vector() const {
    constexpr int i = kVector;
    if constexpr (Fmt::kBits == 8) return isa::load_codes(codes + 64 * i);
    if constexpr (Fmt::kBits == 4) return low_nibbles<i>();
    if constexpr (Fmt::kBits == 5) return isa::join<i, 1, 4>(low_nibbles<i>(), isa::load_codes(codes + 256));
    if constexpr (Fmt::kBits == 6)
      return isa::join<i / 2 * 2, 2, 4>(low_nibbles<i>(), isa::load_codes(codes + 256 + 64 * (i % 2)));
    if constexpr (Fmt::kBits == 2) return low_pairs<i>();
    if constexpr (Fmt::kBits == 3) return isa::join<i, 1, 2>(low_pairs<i>(), isa::load_codes(codes + 128));
  }

  // d_w of a group.
  POCKETLM_INLINE isa::F scale(int group) const {
    const std::byte* s = scales + group * Fmt::kGroupBytes;
    if constexpr (Fmt::kScales == Scales::Half || Fmt::kScales == Scales::HalfPair) return half(s);
    if constexpr (Fmt::kScales == Scales::Super16)
      return isa::mul(half(supers), isa::load_i8(reinterpret_cast<const int8_t*>(s)));
    if constexpr (Fmt::kScales == Scales::Super16Pair)
      return isa::mul(half(supers), isa::load_low_nibbles(reinterpret_cast<const uint8_t*>(s)));
    if constexpr (Fmt::kScales == Scales::Super32Pair)
      return isa::mul(half(supers), isa::load_u8(reinterpret_cast<const uint8_t*>(s)));
    if constexpr (Fmt::kScales == Scales::SuperOnly) return half(supers);
  }

  // m_w of a group of an affine format.
  POCKETLM_INLINE isa::F min(int group) const {
    const std::byte* s = scales + group * Fmt::kGroupBytes;
    if constexpr (Fmt::kScales == Scales::HalfPair) return half(s + 32);
    const isa::F negative = isa::sub(isa::set1(0), half(supers + 32));
    if constexpr (Fmt::kScales == Scales::Super16Pair)
      return isa::mul(negative, isa::load_high_nibbles(reinterpret_cast<const uint8_t*>(s)));
    return isa::mul(negative, isa::load_u8(reinterpret_cast<const uint8_t*>(s + 16)));
  }

 private:
  static POCKETLM_INLINE isa::F half(const std::byte* p) { return isa::load_f16(reinterpret_cast<const uint16_t*>(p)); }
  template <int i>
  POCKETLM_INLINE isa::Codes low_nibbles() const {
    return isa::field<i / 4 * 4, 4>(isa::load_codes(codes + 64 * (i % 4)));
  }
  template <int i>
  POCKETLM_INLINE isa::Codes low_pairs() const {
    return isa::field<i / 2 * 2, 2>(isa::load_codes(codes + 64 * (i % 2)));
  }
};

// A packed panel.
template <class Fmt>
struct PackedPanel {
  const std::byte* codes;
  const std::byte* scales;
  const std::byte* supers;

  PackedPanel(const PackedMatrix& w, int64_t i)
      : codes(w.panel(i)), scales(codes + w.scales_offset), supers(codes + w.supers_offset) {}

  POCKETLM_INLINE PackedBlock<Fmt> block(int64_t b) const {
    return {codes + b * (64 * Fmt::kBits), scales + b * (Fmt::kGroups * Fmt::kGroupBytes),
            supers + b / 8 * (Fmt::kPairedSupers ? 64 : 32)};
  }
};

// A block that was unpacked before: 8 vectors of codes, then d_w and m_w of each group.
template <class Fmt>
struct UnpackedBlock {
  static constexpr int kBytes = 512 + Fmt::kGroups * (Fmt::kAffine ? 128 : 64);
  const std::byte* data;

  template <int kVector>
  POCKETLM_INLINE isa::Codes vector() const { return isa::load_codes(data + 64 * kVector); }
  POCKETLM_INLINE isa::F scale(int group) const { return isa::load(floats() + 16 * group); }
  POCKETLM_INLINE isa::F min(int group) const { return isa::load(floats() + 16 * (Fmt::kGroups + group)); }

 private:
  POCKETLM_INLINE const float* floats() const { return reinterpret_cast<const float*>(data + 512); }
};

template <class Fmt>
struct UnpackedPanel {
  const std::byte* data;
  POCKETLM_INLINE UnpackedBlock<Fmt> block(int64_t b) const { return {data + b * UnpackedBlock<Fmt>::kBytes}; }
};

// Asks for the weights that lie `distance` bytes further while a panel's blocks are used, up to the end of a range of
// panels: as one run of memory, although a panel has its codes, scales and supers one after another. Reading alone
// would not keep the memory busy: the three streams are short, and the hardware's prefetchers start anew at every one.
template <class Fmt>
struct Lookahead {
  PackedPanel<Fmt> panel;
  int64_t blocks;

  // In a panel of the range that ends before `panel_end`.
  Lookahead(const PackedMatrix& w, int64_t p, int64_t panel_end, int64_t distance)
      : panel(w, p), blocks(w.cols / kBlock), distance_(distance), left_(w.panel(panel_end) - w.panel(p)),
        step_(int64_t(w.panel_bytes) / blocks) {}

  // Before block b: its share of the panel's bytes.
  POCKETLM_INLINE void operator()(int64_t b) const {
    const int64_t from = distance_ + b * step_;
    if (from < left_)
      unroll<kLines>([&](auto i) POCKETLM_INLINED { __builtin_prefetch(panel.codes + from + 64 * i.value); });
  }

 private:
  static constexpr int kLines = Fmt::kBits + 1;  // codes, and at most 64 bytes of scales and supers
  int64_t distance_, left_, step_;
};

template <class Fmt>
void unpack_panel(const Lookahead<Fmt>& lookahead, int64_t begin, int64_t end, std::byte* out) {
  const PackedPanel<Fmt>& panel = lookahead.panel;
  for (int64_t b = begin; b < end; ++b, out += UnpackedBlock<Fmt>::kBytes) {
    lookahead(b);
    const auto block = panel.block(b);
    unroll<8>([&](auto i) POCKETLM_INLINED {
      isa::store_codes(out + 64 * i.value, block.template vector<i.value>());
    });
    auto* floats = reinterpret_cast<float*>(out + 512);
    for (int g = 0; g < Fmt::kGroups; ++g) isa::store(floats + 16 * g, block.scale(g));
    if constexpr (Fmt::kAffine)
      for (int g = 0; g < Fmt::kGroups; ++g) isa::store(floats + 16 * (Fmt::kGroups + g), block.min(g));
  }
}

}  // namespace
}  // namespace pocketlm
