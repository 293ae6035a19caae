/* Causal softmax attention of T queries to L keys, of which the last T are those of the same tokens. */

#include "port.h"

/* Write the weights of query t, which sees the keys before its own, and that one. */
static void weights_of(long t, long T, long L, long K, const REAL q[T][K], const REAL k[L][K], REAL w[L])
{
    long visible = L - T + t + 1;
    REAL largest = -INFINITY, sum = 0;
    EACH(s, visible) {
        w[s] = 0;
        EACH(i, K) w[s] += q[t][i] * k[s][i];
        w[s] /= sqrt((REAL)K);
        largest = w[s] > largest ? w[s] : largest;
    }
    EACH(s, visible) sum += w[s] = exp(w[s] - largest);
    EACH(s, L) w[s] = s < visible ? w[s] / sum : 0;
}

void attention(long B, long T, long L, long K, long V, const REAL q[B][T][K], const REAL k[B][L][K],
               const REAL v[B][L][V], REAL y[B][T][V])
{
    REAL *w = malloc(L * sizeof *w);
    EACH(b, B) EACH(t, T) {
        weights_of(t, T, L, K, q[b], k[b], w);
        EACH(j, V) y[b][t][j] = 0;
        EACH(s, L) EACH(j, V) y[b][t][j] += w[s] * v[b][s][j];
    }
    free(w);
}

/* dk and dv are added to. */
void attention_backward(long B, long T, long L, long K, long V, const REAL q[B][T][K], const REAL k[B][L][K],
                        const REAL v[B][L][V], const REAL dy[B][T][V], REAL dq[B][T][K], REAL dk[B][L][K],
                        REAL dv[B][L][V])
{
    REAL *w = malloc(L * sizeof *w), *dw = malloc(L * sizeof *dw);
    EACH(b, B) EACH(t, T) {
        REAL mean = 0;
        weights_of(t, T, L, K, q[b], k[b], w);
        EACH(s, L) {
            dw[s] = 0;
            EACH(j, V) dw[s] += dy[b][t][j] * v[b][s][j];
            EACH(j, V) dv[b][s][j] += w[s] * dy[b][t][j];
            mean += w[s] * dw[s];
        }
        EACH(i, K) dq[b][t][i] = 0;
        EACH(s, L) {
            REAL score = w[s] * (dw[s] - mean) / sqrt((REAL)K);
            EACH(i, K) dq[b][t][i] += score * k[b][s][i];
            EACH(i, K) dk[b][s][i] += score * q[b][t][i];
        }
    }
    free(w);
    free(dw);
}
