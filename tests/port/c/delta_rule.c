/* The delta rule: u[t] = beta[t] (v[t] - k[t] S[t - 1]), S[t] = S[t - 1] + k[t] u[t], y[t] = q[t] S[t]. */

#include "port.h"

void delta_rule(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K], const REAL v[B][T][V],
                const REAL beta[B][T], const REAL S0[B][K][V], REAL y[B][T][V], REAL S[B][K][V])
{
    EACH(b, B) {
        EACH(i, K) EACH(j, V) S[b][i][j] = S0 ? S0[b][i][j] : 0;
        EACH(t, T) EACH(j, V) {
            REAL prediction = 0, sum = 0;
            EACH(i, K) prediction += k[b][t][i] * S[b][i][j];
            REAL u = beta[b][t] * (v[b][t][j] - prediction);
            EACH(i, K) {
                S[b][i][j] += k[b][t][i] * u;
                sum += q[b][t][i] * S[b][i][j];
            }
            y[b][t][j] = sum;
        }
    }
}

/* All states are kept: S[t] is the one before token t. */
void delta_rule_backward(long B, long T, long K, long V, const REAL q[B][T][K], const REAL k[B][T][K],
                         const REAL v[B][T][V], const REAL beta[B][T], const REAL S0[B][K][V], const REAL dy[B][T][V],
                         const REAL dS_last[B][K][V], REAL dq[B][T][K], REAL dk[B][T][K], REAL dv[B][T][V],
                         REAL dbeta[B][T], REAL dS0[B][K][V])
{
    REAL(*S)[K][V] = malloc((T + 1) * sizeof *S), (*error)[V] = malloc(T * sizeof *error);
    EACH(b, B) {
        REAL(*dS)[V] = dS0[b];
        EACH(i, K) EACH(j, V) S[0][i][j] = S0 ? S0[b][i][j] : 0;
        EACH(t, T) EACH(j, V) {
            error[t][j] = v[b][t][j];
            EACH(i, K) error[t][j] -= k[b][t][i] * S[t][i][j];
            EACH(i, K) S[t + 1][i][j] = S[t][i][j] + k[b][t][i] * beta[b][t] * error[t][j];
        }
        EACH(i, K) EACH(j, V) dS[i][j] = dS_last[b][i][j];
        for (long t = T - 1; t >= 0; t--) {
            EACH(i, K) dq[b][t][i] = dk[b][t][i] = 0;
            dbeta[b][t] = 0;
            EACH(j, V) {
                REAL du = 0;
                EACH(i, K) {
                    dq[b][t][i] += S[t + 1][i][j] * dy[b][t][j];
                    dS[i][j] += q[b][t][i] * dy[b][t][j];
                    du += k[b][t][i] * dS[i][j];
                    dk[b][t][i] += dS[i][j] * beta[b][t] * error[t][j];
                }
                dbeta[b][t] += du * error[t][j];
                dv[b][t][j] = beta[b][t] * du;
                EACH(i, K) {
                    dk[b][t][i] -= dv[b][t][j] * S[t][i][j];
                    dS[i][j] -= k[b][t][i] * dv[b][t][j];
                }
            }
        }
    }
    free(S);
    free(error);
}
