/* The leg stage as a specialist in C would write it: OpenMP over accounts, the sums of an account in vector registers.

   Compiled by opponents_c.py with -DREAL=double|float and -DCOLUMNS=n, the number of scenarios rounded up to whole
   vectors: rows of `table` are that wide and aligned, and what fills them repeats the first scenario, so that it never
   changes the least one. */
#include <stdint.h>

#define TASK 1024

static inline REAL least(const REAL *restrict total) {
    REAL found = total[0];
    for (int s = 1; s < COLUMNS; ++s) found = total[s] < found ? total[s] : found;
    return found;
}

void worst_pnl(int64_t accounts, const int64_t *restrict indptr, const int32_t *restrict contract,
               const REAL *restrict quantity, const REAL *restrict table, REAL *restrict out) {
#pragma omp parallel for schedule(dynamic, TASK)
    for (int64_t account = 0; account < accounts; ++account) {
        REAL total[COLUMNS] __attribute__((aligned(64))) = {0};
        for (int64_t leg = indptr[account]; leg < indptr[account + 1]; ++leg) {
            const REAL *row = __builtin_assume_aligned(table + (int64_t)contract[leg] * COLUMNS, 64);
            for (int s = 0; s < COLUMNS; ++s) total[s] += quantity[leg] * row[s];
        }
        out[account] = least(total);
    }
}

/* Legs of an expiry stand together; what it is worth in a scenario is discounted where that is positive. */
void worst_pnl_by_expiry(int64_t accounts, const int64_t *restrict indptr, const int32_t *restrict contract,
                         const REAL *restrict quantity, const REAL *restrict table, const REAL *restrict value,
                         const int32_t *restrict expiry, const REAL *restrict discount, REAL *restrict out) {
#pragma omp parallel for schedule(dynamic, TASK)
    for (int64_t account = 0; account < accounts; ++account) {
        REAL total[COLUMNS] __attribute__((aligned(64))) = {0};
        REAL worth = 0;
        int64_t leg = indptr[account], end = indptr[account + 1];
        while (leg < end) {
            const int32_t first = contract[leg];
            REAL run[COLUMNS] __attribute__((aligned(64))) = {0};
            do {
                const REAL *row = __builtin_assume_aligned(table + (int64_t)contract[leg] * COLUMNS, 64);
                for (int s = 0; s < COLUMNS; ++s) run[s] += quantity[leg] * row[s];
                worth += quantity[leg] * value[contract[leg]];
                ++leg;
            } while (leg < end && expiry[contract[leg]] == expiry[first]);
            const REAL factor = discount[first];
            for (int s = 0; s < COLUMNS; ++s) {
                const REAL discounted = factor * run[s];
                total[s] += run[s] < discounted ? run[s] : discounted;
            }
        }
        out[account] = least(total) - worth;
    }
}
