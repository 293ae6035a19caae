/* What the ports in C share. They are compiled for double and, with -DREAL=float, for float. */

#include <complex.h>
#include <stdlib.h>
#include <tgmath.h>

#ifndef REAL
#define REAL double
#endif
#define EACH(i, n) for (long i = 0; i < (n); i++)
