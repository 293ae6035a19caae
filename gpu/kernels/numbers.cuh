// The element type of arrays: real, or with -DARRAY=Bfloat16 bf16, which is widened to float for arithmetic.
#pragma once
#include "common.cuh"

struct Bfloat16 {  // the upper half of a float
    unsigned short bits;
};

#ifndef ARRAY
#define ARRAY REAL
#endif
typedef ARRAY Number;

__device__ inline real widen(real x) { return x; }
__device__ inline real widen(Bfloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }
__device__ inline void narrow(real &to, real x) { to = x; }  // to Bfloat16, see mma.cuh
