/* The gated delta rule, with states V x K and the queries scaled: S is decayed by exp(g[t]), then
   u[t] = beta[t] (v[t] - S k[t]), S[t] = S + u[t] k[t], y[t] = S[t] q[t] / sqrt(K). */

#include "port.h"

void gated_delta_rule(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],
                      const REAL v[B][T][V], const REAL g[B][T], const REAL beta[B][T], const REAL S0[B][V][K],
                      REAL y[B][T][V], REAL S[B][V][K])
{
    REAL scale = 1 / sqrt((REAL)K);
    EACH(b, B) {
        EACH(j, V) EACH(i, K) S[b][j][i] = S0 ? S0[b][j][i] : 0;
        EACH(t, T) EACH(j, V) {
            REAL prediction = 0, sum = 0;
            EACH(i, K) S[b][j][i] *= exp(g[b][t]);
            EACH(i, K) prediction += S[b][j][i] * k[b][t][i];
            REAL u = beta[b][t] * (v[b][t][j] - prediction);
            EACH(i, K) {
                S[b][j][i] += u * k[b][t][i];
                sum += S[b][j][i] * q[b][t][i] * scale;
            }
            y[b][t][j] = sum;
        }
    }
}

/* All states are kept: S[t] is the one before token t, which row by row is decayed and written to. */
void gated_delta_rule_backward(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],
                               const REAL v[B][T][V], const REAL g[B][T], const REAL beta[B][T],
                               const REAL S0[B][V][K], const REAL dy[B][T][V], const REAL dS_last[B][V][K],
                               REAL dq[B][T][K], REAL dk[B][T][K], REAL dv[B][T][V], REAL dg[B][T], REAL dbeta[B][T],
                               REAL dS0[B][V][K])
{
    REAL scale = 1 / sqrt((REAL)K);
    REAL(*S)[V][K] = malloc((T + 1) * sizeof *S), (*error)[V] = malloc(T * sizeof *error);
    EACH(b, B) {
        REAL(*dS)[K] = dS0[b];
        EACH(j, V) EACH(i, K) S[0][j][i] = S0 ? S0[b][j][i] : 0;
        EACH(t, T) EACH(j, V) {
            error[t][j] = v[b][t][j];
            EACH(i, K) error[t][j] -= exp(g[b][t]) * S[t][j][i] * k[b][t][i];
            EACH(i, K) S[t + 1][j][i] = exp(g[b][t]) * S[t][j][i] + beta[b][t] * error[t][j] * k[b][t][i];
        }
        EACH(j, V) EACH(i, K) dS[j][i] = dS_last[b][j][i];
        for (long t = T - 1; t >= 0; t--) {
            REAL decay = exp(g[b][t]), d_decay = 0;
            EACH(i, K) dq[b][t][i] = dk[b][t][i] = 0;
            dbeta[b][t] = 0;
            EACH(j, V) {
                REAL du = 0;
                EACH(i, K) {
                    dq[b][t][i] += S[t + 1][j][i] * dy[b][t][j] * scale;
                    dS[j][i] += q[b][t][i] * dy[b][t][j] * scale;
                    du += k[b][t][i] * dS[j][i];
                    dk[b][t][i] += dS[j][i] * beta[b][t] * error[t][j];
                }
                dbeta[b][t] += du * error[t][j];
                dv[b][t][j] = beta[b][t] * du;
                EACH(i, K) {
                    dk[b][t][i] -= dv[b][t][j] * decay * S[t][j][i];
                    dS[j][i] -= k[b][t][i] * dv[b][t][j];
                    d_decay += dS[j][i] * S[t][j][i];
                    dS[j][i] *= decay;
                }
            }
            dg[b][t] = d_decay * decay;
        }
    }
    free(S);
    free(error);
}
