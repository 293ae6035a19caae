/* Gated linear attention in chunks of C tokens, with the logarithm of a gate for each token:
   y[t] = exp(g[c] + ... + g[t]) q[t] S + sum over s <= t of exp(g[s + 1] + ... + g[t]) (q[t] . k[s]) v[s],
   where c is the first token of the chunk and S the state before it. */

#include "port.h"

void gated_linear_attention(long B, long T, long K, long V, long C, const REAL q[B][T][K], const REAL k[B][T][K],
                            const REAL v[B][T][V], const REAL g[B][T], const REAL S0[B][K][V], REAL y[B][T][V],
                            REAL S[B][K][V])
{
    EACH(b, B) {
        EACH(i, K) EACH(j, V) S[b][i][j] = S0 ? S0[b][i][j] : 0;
        for (long first = 0; first < T; first += C) {
            long end = first + C < T ? first + C : T;
            for (long t = first; t < end; t++) {
                EACH(j, V) y[b][t][j] = 0;
                REAL sum = 0;
                for (long s = t; s >= first; s--) {
                    REAL score = 0;
                    EACH(i, K) score += q[b][t][i] * k[b][s][i];
                    EACH(j, V) y[b][t][j] += exp(sum) * score * v[b][s][j];
                    sum += g[b][s];
                }
                EACH(i, K) EACH(j, V) y[b][t][j] += exp(sum) * q[b][t][i] * S[b][i][j];
            }
            for (long t = first; t < end; t++)
                EACH(i, K) EACH(j, V) S[b][i][j] = exp(g[b][t]) * S[b][i][j] + k[b][t][i] * v[b][t][j];
        }
    }
}

void gated_linear_attention_backward(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],
                                     const REAL v[B][T][V], const REAL g[B][T], const REAL S0[B][K][V],
                                     const REAL dy[B][T][V], const REAL dS_last[B][K][V], REAL dq[B][T][K],
                                     REAL dk[B][T][K], REAL dv[B][T][V], REAL dg[B][T], REAL dS0[B][K][V])
{
    REAL(*S)[K][V] = malloc((T + 1) * sizeof *S);
    EACH(b, B) {
        REAL(*dS)[V] = dS0[b];
        EACH(i, K) EACH(j, V) S[0][i][j] = S0 ? S0[b][i][j] : 0;
        EACH(t, T) EACH(i, K) EACH(j, V) S[t + 1][i][j] = exp(g[b][t]) * S[t][i][j] + k[b][t][i] * v[b][t][j];
        EACH(i, K) EACH(j, V) dS[i][j] = dS_last[b][i][j];
        for (long t = T - 1; t >= 0; t--) {
            REAL decay = exp(g[b][t]), d_decay = 0;
            EACH(j, V) dv[b][t][j] = 0;
            EACH(i, K) {
                dq[b][t][i] = dk[b][t][i] = 0;
                EACH(j, V) {
                    dq[b][t][i] += S[t + 1][i][j] * dy[b][t][j];
                    dS[i][j] += q[b][t][i] * dy[b][t][j];
                    dk[b][t][i] += dS[i][j] * v[b][t][j];
                    dv[b][t][j] += dS[i][j] * k[b][t][i];
                    d_decay += dS[i][j] * S[t][i][j];
                    dS[i][j] *= decay;
                }
            }
            dg[b][t] = d_decay * decay;
        }
    }
    free(S);
}
