// Fills the table of encoders from the bodies that were compiled for this translation unit's instruction set.
#pragma once

#include "quantize/encode_rows-inl.h"
#include "quantize/encode_search_super-inl.h"

namespace pocketlm {
namespace {

template <class Block, int N, class Nearest, class Search>
constexpr BlockEncoder encoder(int type) {
  return {type, encode_groups<Block, N, Nearest>, encode_groups<Block, N, Search>};
}

using SearchQ4_0 = SearchGroups<Grid<-8, 7, false>, NearestSigned<8>, 8, Settings4>;
using SearchQ4_1 = SearchGroups<Grid<0, 15, true>, NearestAffine<15>, 0, Settings4>;
using SearchQ5_0 = SearchGroups<Grid<-16, 15, false>, NearestSigned<16>, 16, Settings5>;
using SearchQ5_1 = SearchGroups<Grid<0, 31, true>, NearestAffine<31>, 0, Settings5>;
using SearchQ8_0 = SearchGroups<Grid<-127, 127, false>, NearestSymmetric<127, 0>, 0, Settings8>;
using SearchTernary = SearchGroups<Grid<-1, 1, false>, NearestSymmetric<1, 1>, 1, SettingsTernary>;

template <class Nearest, class Search>
constexpr BlockEncoder encoder(int type) {
  return {type, encode_supers<Nearest>, encode_supers<Search>};
}

constexpr Encoders table(const char* name) {
  return {
      .name = name,
      .load_f32 = load_row<SourceF32>,
      .load_f16 = load_row<SourceF16>,
      .load_bf16 = load_row<SourceBF16>,
      .weigh = weigh_row,
      .of = {{kF32, encode_f32, encode_f32},
             {kF16, encode_f16, encode_f16},
             {kBF16, encode_bf16, encode_bf16},
             encoder<BlockQ4_0, 32, NearestSigned<8>, SearchQ4_0>(kQ4_0),
             encoder<BlockQ4_1, 32, NearestAffine<15>, SearchQ4_1>(kQ4_1),
             encoder<BlockQ5_0, 32, NearestSigned<16>, SearchQ5_0>(kQ5_0),
             encoder<BlockQ5_1, 32, NearestAffine<31>, SearchQ5_1>(kQ5_1),
             encoder<BlockQ8_0, 32, NearestSymmetric<127, 0>, SearchQ8_0>(kQ8_0),
             encoder<NearestQ2_K, SearchQ2_K>(kQ2_K),
             encoder<NearestQ3_K, SearchQ3_K>(kQ3_K),
             encoder<NearestQ4_K, SearchQ4_K>(kQ4_K),
             encoder<NearestQ5_K, SearchQ5_K>(kQ5_K),
             encoder<NearestQ6_K, SearchQ6_K>(kQ6_K),
             encoder<BlockTQ1_0, 256, NearestSymmetric<1, 1>, SearchTernary>(kTQ1_0),
             encoder<BlockTQ2_0, 256, NearestSymmetric<1, 1>, SearchTernary>(kTQ2_0)},
  };
}

}  // namespace
}  // namespace pocketlm
