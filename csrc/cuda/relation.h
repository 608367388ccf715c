// Whether a pair belongs to a sparse relation; kinds and arrays as in alc_kernels/backends/triton/tile/relation.py.
#pragma once

#include "api.h"
#include "device.h"

namespace alc {

struct Relation {
  int64_t kind;
  const int64_t* row;
  const int64_t* col;

  // One row's part of the relation, and a look-up in it.
  struct Row {
    int64_t kind, begin, end;
    const int64_t* col;

    __device__ bool holds(int64_t label) const {
      if (kind == ALC_EMPTY) return false;
      if (kind == ALC_INDEX) return label == begin;
      int64_t low = begin, high = end;
      while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (col[middle] < label) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      return low < end && col[low] == label;
    }
  };

  __device__ Row of(int64_t query) const {
    switch (kind) {
      case ALC_DIAGONAL:
        return {ALC_INDEX, query, 0, col};
      case ALC_INDEX:
        return {ALC_INDEX, row[query], 0, col};
      case ALC_CSR:
        return {ALC_CSR, row[query], row[query + 1], col};
      case ALC_RANGES:
        return {ALC_CSR, row[2 * query], row[2 * query + 1], col};
      default:
        return {ALC_EMPTY, 0, 0, col};
    }
  }
};

}  // namespace alc
