/* Linear attention: S[t] = S[t - 1] + k[t] v[t], y[t] = q[t] S[t]. S0 may be NULL: zeros. S is the last state. */

#include "port.h"

void linear_attention(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],
                      const REAL v[B][T][V], const REAL S0[B][K][V], REAL y[B][T][V], REAL S[B][K][V])
{
    EACH(b, B) {
        EACH(i, K) EACH(j, V) S[b][i][j] = S0 ? S0[b][i][j] : 0;
        EACH(t, T) {
            EACH(i, K) EACH(j, V) S[b][i][j] += k[b][t][i] * v[b][t][j];
            EACH(j, V) {
                REAL sum = 0;
                EACH(i, K) sum += q[b][t][i] * S[b][i][j];
                y[b][t][j] = sum;
            }
        }
    }
}

/* The state goes forwards once more for dq; its gradient, which begins as dS_last and ends as dS0, goes backwards. */
void linear_attention_backward(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],
                               const REAL v[B][T][V], const REAL S0[B][K][V], const REAL dy[B][T][V],
                               const REAL dS_last[B][K][V], REAL dq[B][T][K], REAL dk[B][T][K], REAL dv[B][T][V],
                               REAL dS0[B][K][V])
{
    REAL(*S)[V] = malloc(K * sizeof *S);
    EACH(b, B) {
        EACH(i, K) EACH(j, V) S[i][j] = S0 ? S0[b][i][j] : 0;
        EACH(t, T) EACH(i, K) {
            dq[b][t][i] = 0;
            EACH(j, V) {
                S[i][j] += k[b][t][i] * v[b][t][j];
                dq[b][t][i] += S[i][j] * dy[b][t][j];
            }
        }
        REAL(*dS)[V] = dS0[b];
        EACH(i, K) EACH(j, V) dS[i][j] = dS_last[b][i][j];
        for (long t = T - 1; t >= 0; t--) {
            EACH(j, V) dv[b][t][j] = 0;
            EACH(i, K) {
                dk[b][t][i] = 0;
                EACH(j, V) {
                    dS[i][j] += q[b][t][i] * dy[b][t][j];
                    dk[b][t][i] += dS[i][j] * v[b][t][j];
                    dv[b][t][j] += dS[i][j] * k[b][t][i];
                }
            }
        }
    }
    free(S);
}
