/* How threads share the work of one call.
 *
 * Helpers take ranges as the caller does, and the caller waits for those only that have taken one: where other processes
 * hold the other cores, the caller does all of it and nobody is waited for. A helper looks out for the next call for a
 * while, since a decode step is a chain of them, and then sleeps.
 */
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

enum { RANGES_PER_THREAD = 8, MAX_HELPERS = 255, LOOKS = 1 << 14 };

typedef struct {
    void (*work)(const void *, long, long);
    const void *job;
    long units, range;
    atomic_long next;
} sharing;

static struct {
    pthread_mutex_t one_at_a_time;
    atomic_uint ticket; /* odd while a call is open */
    atomic_int inside;  /* helpers that may be at work on it */
    atomic_int asleep;
    sharing call;
    long helpers;
} pool = {.one_at_a_time = PTHREAD_MUTEX_INITIALIZER};

static void take_part(sharing *call)
{
    long first;
    while ((first = atomic_fetch_add(&call->next, call->range)) < call->units)
        call->work(call->job, first, least(first + call->range, call->units));
}

static void rest(void)
{
#ifdef X86
    _mm_pause();
#endif
}

static void sleep_until_not(unsigned ticket)
{
    atomic_fetch_add(&pool.asleep, 1);
#ifdef __linux__
    syscall(SYS_futex, &pool.ticket, FUTEX_WAIT_PRIVATE, ticket, 0, 0, 0);
#else
    if (atomic_load(&pool.ticket) == ticket)
        usleep(1000);
#endif
    atomic_fetch_sub(&pool.asleep, 1);
}

static void wake_all(void)
{
#ifdef __linux__
    if (atomic_load(&pool.asleep))
        syscall(SYS_futex, &pool.ticket, FUTEX_WAKE_PRIVATE, MAX_HELPERS, 0, 0, 0);
#endif
}

static void *help(void *unused)
{
    unsigned seen = 0, ticket;
    for (;;) {
        for (int looks = 0; (ticket = atomic_load(&pool.ticket)) == seen || !(ticket & 1); looks++) {
            if (looks >= LOOKS)
                sleep_until_not(ticket);
            rest();
        }
        atomic_fetch_add(&pool.inside, 1);
        if (atomic_load(&pool.ticket) == ticket) /* not closed before the caller could see us */
            take_part(&pool.call);
        atomic_fetch_sub(&pool.inside, 1);
        seen = ticket;
    }
    return unused;
}

static void hire(long wanted)
{
    pthread_t thread;
    while (pool.helpers < least(wanted, MAX_HELPERS) && !pthread_create(&thread, 0, help, 0)) {
        pthread_detach(thread);
        pool.helpers++;
    }
}

void share(const machine *machine, void (*work)(const void *, long, long), const void *job, long units)
{
    const long threads = least(machine->threads, units);
    if (threads <= 1 || pthread_mutex_trylock(&pool.one_at_a_time)) {
        work(job, 0, units);
        return;
    }
    hire(machine->threads - 1);
    pool.call.work = work, pool.call.job = job, pool.call.units = units;
    pool.call.range = 1 + units / (threads * RANGES_PER_THREAD);
    atomic_store(&pool.call.next, 0);
    atomic_fetch_add(&pool.ticket, 1);
    wake_all();
    take_part(&pool.call);
    atomic_fetch_add(&pool.ticket, 1);
    while (atomic_load(&pool.inside))
        rest();
    pthread_mutex_unlock(&pool.one_at_a_time);
}
