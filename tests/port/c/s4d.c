/* S4D by zero-order hold, one of each conjugate pair: a = exp(delta L), b = (a - 1) / L B,
   h[t] = a h[t - 1] + b u[t], y[t] = 2 Re(C h[t]) + D u[t]. */

#include "port.h"

typedef REAL complex COMPLEX;

void s4d(long Z, long T, long D, long N, const REAL u[Z][T][D], const COMPLEX L[D][N], const COMPLEX B[D][N],
         const COMPLEX C[D][N], const REAL skip[D], const REAL delta[D], const COMPLEX h0[Z][D][N], REAL y[Z][T][D],
         COMPLEX h[Z][D][N])
{
    EACH(z, Z) EACH(d, D) {
        EACH(t, T) y[z][t][d] = skip[d] * u[z][t][d];
        EACH(n, N) {
            COMPLEX a = exp(delta[d] * L[d][n]), b = (a - 1) / L[d][n] * B[d][n];
            h[z][d][n] = h0 ? h0[z][d][n] : 0;
            EACH(t, T) {
                h[z][d][n] = a * h[z][d][n] + b * u[z][t][d];
                y[z][t][d] += 2 * creal(C[d][n] * h[z][d][n]);
            }
        }
    }
}

/* Gradients of complex arrays are those of descent, with the conjugate of each factor. They are added to, but dh0. */
void s4d_backward(long Z, long T, long D, long N, const REAL u[Z][T][D], const COMPLEX L[D][N], const COMPLEX B[D][N],
                  const COMPLEX C[D][N], const REAL skip[D], const REAL delta[D], const COMPLEX h0[Z][D][N],
                  const REAL dy[Z][T][D], const COMPLEX dh_last[Z][D][N], REAL du[Z][T][D], COMPLEX dL[D][N],
                  COMPLEX dB[D][N], COMPLEX dC[D][N], REAL d_skip[D], REAL ddelta[D], COMPLEX dh0[Z][D][N])
{
    COMPLEX *h = malloc((T + 1) * sizeof *h);
    EACH(z, Z) EACH(d, D) {
        EACH(t, T) du[z][t][d] = skip[d] * dy[z][t][d];
        EACH(t, T) d_skip[d] += u[z][t][d] * dy[z][t][d];
        EACH(n, N) {
            COMPLEX a = exp(delta[d] * L[d][n]), hold = (a - 1) / L[d][n], da = 0, db = 0, dh = dh_last[z][d][n];
            h[0] = h0 ? h0[z][d][n] : 0;
            EACH(t, T) h[t + 1] = a * h[t] + hold * B[d][n] * u[z][t][d];
            for (long t = T - 1; t >= 0; t--) {
                dC[d][n] += 2 * dy[z][t][d] * conj(h[t + 1]);
                dh += 2 * dy[z][t][d] * conj(C[d][n]);
                du[z][t][d] += creal(dh * conj(hold * B[d][n]));
                db += dh * u[z][t][d];
                da += dh * conj(h[t]);
                dh *= conj(a);
            }
            dh0[z][d][n] = dh;
            dB[d][n] += db * conj(hold);
            da += db * conj(B[d][n] / L[d][n]);
            dL[d][n] += da * conj(delta[d] * a) - db * conj(hold * B[d][n] / L[d][n]);
            ddelta[d] += creal(da * conj(L[d][n] * a));
        }
    }
    free(h);
}
