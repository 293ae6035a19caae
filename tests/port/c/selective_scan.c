/* The selective scan: h[t] = exp(delta[t] A) h[t - 1] + delta[t] B[t] u[t], y[t] = C[t] h[t] + D u[t], for each channel. */

#include "port.h"

void selective_scan(long Z, long T, long D, long N, const REAL u[Z][T][D], const REAL delta[Z][T][D],
                    const REAL A[D][N], const REAL B[Z][T][N], const REAL C[Z][T][N], const REAL skip[D],
                    const REAL h0[Z][D][N], REAL y[Z][T][D], REAL h[Z][D][N])
{
    EACH(z, Z) {
        EACH(d, D) EACH(n, N) h[z][d][n] = h0 ? h0[z][d][n] : 0;
        EACH(t, T) EACH(d, D) {
            REAL step = delta[z][t][d], sum = 0;
            EACH(n, N) {
                h[z][d][n] = exp(step * A[d][n]) * h[z][d][n] + step * B[z][t][n] * u[z][t][d];
                sum += C[z][t][n] * h[z][d][n];
            }
            y[z][t][d] = sum + skip[d] * u[z][t][d];
        }
    }
}

/* dA and d_skip, which have no batch axis, are sums over the batch; like dB and dC they are added to. */
void selective_scan_backward(long Z, long T, long D, long N, const REAL u[Z][T][D], const REAL delta[Z][T][D],
                             const REAL A[D][N], const REAL B[Z][T][N], const REAL C[Z][T][N], const REAL skip[D],
                             const REAL h0[Z][D][N], const REAL dy[Z][T][D], const REAL dh_last[Z][D][N],
                             REAL du[Z][T][D], REAL ddelta[Z][T][D], REAL dA[D][N], REAL dB[Z][T][N],
                             REAL dC[Z][T][N], REAL d_skip[D], REAL dh0[Z][D][N])
{
    REAL(*h)[D][N] = malloc((T + 1) * sizeof *h);
    EACH(z, Z) {
        REAL(*dh)[N] = dh0[z];
        EACH(d, D) EACH(n, N) h[0][d][n] = h0 ? h0[z][d][n] : 0;
        EACH(t, T) EACH(d, D) EACH(n, N) {
            REAL step = delta[z][t][d];
            h[t + 1][d][n] = exp(step * A[d][n]) * h[t][d][n] + step * B[z][t][n] * u[z][t][d];
        }
        EACH(d, D) EACH(n, N) dh[d][n] = dh_last[z][d][n];
        for (long t = T - 1; t >= 0; t--) EACH(d, D) {
            REAL step = delta[z][t][d], x = u[z][t][d];
            du[z][t][d] = skip[d] * dy[z][t][d];
            d_skip[d] += x * dy[z][t][d];
            ddelta[z][t][d] = 0;
            EACH(n, N) {
                REAL decay = exp(step * A[d][n]);
                dC[z][t][n] += dy[z][t][d] * h[t + 1][d][n];
                dh[d][n] += dy[z][t][d] * C[z][t][n];
                ddelta[z][t][d] += dh[d][n] * (A[d][n] * decay * h[t][d][n] + B[z][t][n] * x);
                dA[d][n] += dh[d][n] * step * decay * h[t][d][n];
                dB[z][t][n] += dh[d][n] * step * x;
                du[z][t][d] += dh[d][n] * step * B[z][t][n];
                dh[d][n] *= decay;
            }
        }
    }
    free(h);
}
