/* SSD in chunks of Q tokens, with one rate A: S[t] = exp(dt[t] A) S[t - 1] + dt[t] B[t] x[t], y[t] = C[t] S[t]. */

#include "port.h"

void ssd(long Z, long T, long N, long P, long Q, const REAL x[Z][T][P], const REAL dt[Z][T], const REAL A[1],
         const REAL B[Z][T][N], const REAL C[Z][T][N], const REAL S0[Z][N][P], REAL y[Z][T][P], REAL S[Z][N][P])
{
    EACH(z, Z) {
        EACH(n, N) EACH(p, P) S[z][n][p] = S0 ? S0[z][n][p] : 0;
        for (long first = 0; first < T; first += Q) {
            long end = first + Q < T ? first + Q : T;
            for (long t = first; t < end; t++) {
                EACH(p, P) y[z][t][p] = 0;
                REAL sum = 0;
                for (long s = t; s >= first; s--) {
                    REAL score = 0;
                    EACH(n, N) score += C[z][t][n] * B[z][s][n];
                    EACH(p, P) y[z][t][p] += exp(sum * A[0]) * score * dt[z][s] * x[z][s][p];
                    sum += dt[z][s];
                }
                EACH(n, N) EACH(p, P) y[z][t][p] += exp(sum * A[0]) * C[z][t][n] * S[z][n][p];
            }
            for (long t = first; t < end; t++)
                EACH(n, N) EACH(p, P) S[z][n][p] = exp(dt[z][t] * A[0]) * S[z][n][p] + dt[z][t] * B[z][t][n] * x[z][t][p];
        }
    }
}

/* dA is a sum over the batch. */
void ssd_backward(long Z, long T, long N, long P, const REAL x[Z][T][P], const REAL dt[Z][T], const REAL A[1],
                  const REAL B[Z][T][N], const REAL C[Z][T][N], const REAL S0[Z][N][P], const REAL dy[Z][T][P],
                  const REAL dS_last[Z][N][P], REAL dx[Z][T][P], REAL ddt[Z][T], REAL dA[1], REAL dB[Z][T][N],
                  REAL dC[Z][T][N], REAL dS0[Z][N][P])
{
    REAL(*S)[N][P] = malloc((T + 1) * sizeof *S);
    dA[0] = 0;
    EACH(z, Z) {
        REAL(*dS)[P] = dS0[z];
        EACH(n, N) EACH(p, P) S[0][n][p] = S0 ? S0[z][n][p] : 0;
        EACH(t, T) EACH(n, N) EACH(p, P)
            S[t + 1][n][p] = exp(dt[z][t] * A[0]) * S[t][n][p] + dt[z][t] * B[z][t][n] * x[z][t][p];
        EACH(n, N) EACH(p, P) dS[n][p] = dS_last[z][n][p];
        for (long t = T - 1; t >= 0; t--) {
            REAL decay = exp(dt[z][t] * A[0]), d_decay = 0, d_write = 0;
            EACH(p, P) dx[z][t][p] = 0;
            EACH(n, N) {
                dB[z][t][n] = dC[z][t][n] = 0;
                EACH(p, P) {
                    dC[z][t][n] += dy[z][t][p] * S[t + 1][n][p];
                    dS[n][p] += dy[z][t][p] * C[z][t][n];
                    d_decay += dS[n][p] * S[t][n][p];
                    d_write += dS[n][p] * B[z][t][n] * x[z][t][p];
                    dB[z][t][n] += dS[n][p] * dt[z][t] * x[z][t][p];
                    dx[z][t][p] += dS[n][p] * dt[z][t] * B[z][t][n];
                    dS[n][p] *= decay;
                }
            }
            ddt[z][t] = d_decay * decay * A[0] + d_write;
            dA[0] += d_decay * decay * dt[z][t];
        }
    }
    free(S);
}
