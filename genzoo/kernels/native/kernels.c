/* genzoo's CPU kernels: the selective scan, the causal depthwise convolution, and what surrounds them in a block.
 *
 * Plain C99 with GCC's vector extensions, compiled once with PRECISION_F32 and once with PRECISION_F64. Entry points
 * take one array of 64-bit integers, laid out as entry.h reads it and as the Python modules write it.
 */
#include <math.h>
#include "tensors.h"

#ifdef PRECISION_F64
#define REAL double
#define IS_DOUBLE 1
#define NAME(x) CONCAT(x, f64)
#else
#define REAL float
#define IS_DOUBLE 0
#define NAME(x) CONCAT(x, f32)
#endif

#include "vectors.h"
#include "tiles.h"
#include "scan.h"
#include "adjoint.h"
#include "scan_backward.h"
#include "conv.h"
#include "adaln.h"
#include "gelu.h"
#include "group_norm.h"
#include "attention.h"
#include "entry.h"
