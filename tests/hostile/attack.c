/* Attacks from below the language: traps of each kind, the ABI's buffers and tickets, WASI with pointers of nobody's, answers
 * that cost the host more than the guest. tests/fixtures/c/hostile.c has those that break one rule of the ABI each. */
#include "skerry.h"
#include <wasi/api.h>

#define ATTACK(name) static void name(skerry_call *call)
#define FAR ((void *)0xfffffff0u)
#define END ((char *)(__builtin_wasm_memory_size(0) * 65536))
#define CALL(...) skerry_import_hostcall(__VA_ARGS__)
#define SAY(...) skerry_done(skerry_text(__VA_ARGS__))
#define CHECKED(condition) SAY((condition) ? "true" : "false")
#define ENTROPY "{\"length\":32}"
#define PING "{\"udfType\":\"query\",\"name\":\"x:alive\",\"args\":{}}"

static char buffer[4096];
static volatile int zero, least = -2147483647 - 1, minus = -1;
static volatile float huge = 1e30f;

ATTACK(alive) { skerry_done("\"pong\""); }

/* -- traps ------------------------------------------------------------------------------------------------------- */
ATTACK(divides_by_zero) { SAY("%d", 1 / zero); }
ATTACK(remainder_by_zero) { SAY("%d", 1 % zero); }
ATTACK(overflows_division) { SAY("%d", least / minus); }
ATTACK(truncates) { SAY("%d", __builtin_wasm_trunc_s_i32_f32(huge)); }
ATTACK(reads_outside) { SAY("%d", *(volatile int *)FAR); }
ATTACK(writes_outside) { *(volatile int *)FAR = 1; }
ATTACK(reads_across_end) { SAY("%d", *(volatile int *)(END - 2)); }
ATTACK(copies_outside) { memmove(END - 16, buffer, 4096 + (size_t)zero); }
ATTACK(calls_nothing) { ((void (*)(void))(size_t)zero)(); }
ATTACK(calls_outside_table) { ((void (*)(void))(size_t)(1000000 + zero))(); }
ATTACK(calls_as_other_type) { ((double (*)(double, double, double))(size_t)alive)(1, 2, 3); }

/* -- buffers of hostcalls ---------------------------------------------------------------------------------------- */
ATTACK(out_over_argument)
{
    memcpy(buffer, ENTROPY, sizeof(ENTROPY));
    CHECKED(CALL("entropy", 7, buffer, sizeof(ENTROPY) - 1, NULL, 0, buffer, 64) == 32 && memcmp(buffer, ENTROPY, 13) != 0);
}
ATTACK(out_over_name)
{
    memcpy(buffer, "entropy", 7);
    CHECKED(CALL(buffer, 7, ENTROPY, sizeof(ENTROPY) - 1, NULL, 0, buffer + 3, 64) == 32 && memcmp(buffer, "ent", 3) == 0);
}
ATTACK(out_at_the_end) { CHECKED(CALL("entropy", 7, ENTROPY, sizeof(ENTROPY) - 1, NULL, 0, END - 32, 32) == 32); }
ATTACK(out_over_zero) { CHECKED(CALL("entropy", 7, ENTROPY, sizeof(ENTROPY) - 1, NULL, 0, NULL, 32) == 32); }
ATTACK(take_over_itself)
{
    CALL("entropy", 7, ENTROPY, sizeof(ENTROPY) - 1, NULL, 0, END - 1, 0);
    CHECKED(skerry_import_take(END - 32, 32) == 32);
}
ATTACK(grow_between)
{
    uint64_t packed = CALL("entropy", 7, ENTROPY, sizeof(ENTROPY) - 1, NULL, 0, buffer, 0);
    char *old = END;
    while (__builtin_wasm_memory_grow(0, 64) != (size_t)-1) {}
    CHECKED((uint32_t)packed == 32 && skerry_import_take(old - 8, 32) == 32);
}
ATTACK(empty_name) { CHECKED(CALL("", 0, "{}", 2, NULL, 0, buffer, 4096) >> 60 == SKERRY_REFUSED); }
ATTACK(name_with_zero) { CHECKED(CALL("entropy\0x", 9, ENTROPY, sizeof(ENTROPY) - 1, NULL, 0, buffer, 4096) >> 60 == SKERRY_REFUSED); }
ATTACK(raw_where_none_is_taken) { CHECKED(CALL("entropy", 7, ENTROPY, sizeof(ENTROPY) - 1, buffer, 4096, buffer, 64) == 32); }
ATTACK(argument_wide)
{
    size_t length = 20u << 20;
    char *text = malloc(length);
    for (size_t at = 0; at + 3 <= length; at += 3)
        memcpy(text + at, "[],", 3);
    memcpy(text, "{\"a\":[", 6), memcpy(text + length / 3 * 3 - 3, "]}", 3);
    skerry_end_with((skerry_answer){SKERRY_REFUSED, (uint32_t)CALL("log", 3, text, strlen(text), NULL, 0, buffer, 4096), buffer});
}

/* -- tickets ------------------------------------------------------------------------------------------------------ */
static int answers;
ATTACK(done_with_ticket_open) { CALL("1.0/runUdf", 10, PING, sizeof(PING) - 1, NULL, 0, buffer, 64), skerry_done("\"done\""); }
ATTACK(waits_twice) { CALL("1.0/runUdf", 10, PING, sizeof(PING) - 1, NULL, 0, buffer, 64), skerry_pending(); }
static void waits_again(uint32_t ticket, skerry_answer answer)
{
    if (++answers < 3)
        waits_twice(NULL);
    else
        SAY("[%u,%d]", ticket, answers);
}
ATTACK(waits_for_ever) { waits_twice(call); }
static void asks_again(uint32_t ticket, skerry_answer answer) { waits_twice(NULL); }
ATTACK(traps_when_resumed) { waits_twice(call); }
static void traps_now(uint32_t ticket, skerry_answer answer) { __builtin_trap(); }
ATTACK(takes_nothing_when_resumed) { waits_twice(call); }
static void takes_again(uint32_t ticket, skerry_answer answer) { skerry_import_take(buffer, 64); }

/* -- WASI --------------------------------------------------------------------------------------------------------- */
static __wasi_size_t written;
ATTACK(wasi_vector_outside) { SAY("%d", __wasi_fd_write(1, FAR, 1, &written)); }
ATTACK(wasi_vectors_many) { SAY("%d", __wasi_fd_write(1, (__wasi_ciovec_t *)buffer, 0x20000000, &written)); }
ATTACK(wasi_bytes_outside)
{
    __wasi_ciovec_t vector = {FAR, 64};
    SAY("%d", __wasi_fd_write(1, &vector, 1, &written));
}
ATTACK(wasi_bytes_wrap)
{
    __wasi_ciovec_t vector = {(void *)16, 0xffffffff};
    SAY("%d", __wasi_fd_write(1, &vector, 1, &written));
}
ATTACK(wasi_count_outside)
{
    __wasi_ciovec_t vector = {(void *)"x\n", 2};
    SAY("%d", __wasi_fd_write(1, &vector, 1, FAR));
}
ATTACK(wasi_other_descriptors)
{
    __wasi_ciovec_t vector = {(void *)"x\n", 2};
    SAY("[%d,%d,%d]", __wasi_fd_write(0, &vector, 1, &written), __wasi_fd_write(3, &vector, 1, &written), __wasi_fd_close(1 + zero));
}
ATTACK(wasi_random_outside) { SAY("%d", __wasi_random_get(FAR, 64)); }
ATTACK(wasi_random_giant) { SAY("%d", __wasi_random_get((void *)64, (__wasi_size_t)(size_t)END - 64)); }
ATTACK(wasi_clock_outside) { SAY("%d", __wasi_clock_time_get(0, 1, FAR)); }
ATTACK(wasi_clock_stands)
{
    __wasi_timestamp_t first, second, other;
    int failed = __wasi_clock_time_get(0, 1, &first);
    for (volatile int i = 0; i < 2000000; i++) {}
    failed |= __wasi_clock_time_get(0, 1, &second) | __wasi_clock_time_get(1, 1, &other);
    CHECKED(!failed && first && first == second);
}
ATTACK(wasi_environment)
{
    __wasi_size_t count, bytes, arguments, more;
    int failed = __wasi_environ_sizes_get(&count, &bytes) | __wasi_args_sizes_get(&arguments, &more);
    SAY("[%d,%u,%u,%u,%u]", failed, (unsigned)count, (unsigned)bytes, (unsigned)arguments, (unsigned)more);
}
ATTACK(wasi_exit) { __wasi_proc_exit(0xffffffff); }

/* -- answers ------------------------------------------------------------------------------------------------------ */
static void answer_of(const char *text, size_t length, uint64_t status) { skerry_result = skerry_pack(status, text, length); }
#define RETURNS(name, text) ATTACK(name) { answer_of(text, sizeof(text) - 1, SKERRY_DONE); }
#define THROWS(name, text) ATTACK(name) { answer_of(text, sizeof(text) - 1, SKERRY_FAILED); }
RETURNS(returns_nothing, "")
RETURNS(returns_mark, "\xef\xbb\xbf" "1")
RETURNS(returns_two, "1 2")
RETURNS(returns_zero_byte, "1\0")
RETURNS(returns_nan, "NaN")
RETURNS(returns_infinity, "1e999")
RETURNS(returns_integer, "123456789012345678901234567890")
RETURNS(returns_surrogate, "\"\\ud800\"")
RETURNS(returns_overlong, "\"\xc0\xaf\"")
RETURNS(returns_keys_twice, "{\"a\":1,\"a\":2}")
RETURNS(returns_dollar, "{\"$what\":1}")
RETURNS(returns_dollar_escaped, "{\"\\u0024integer\":\"AA==\"}")
RETURNS(returns_integer_short, "{\"$integer\":\"AA==\"}")
RETURNS(returns_float_plain, "{\"$float\":\"AAAAAAAA8D8=\"}")
RETURNS(returns_bytes_crooked, "{\"$bytes\":\"A===\"}")
RETURNS(returns_undefined, "{\"$undefined\":null}")
RETURNS(returns_comment, "/* */ 1")
THROWS(throws_list, "[1]")
THROWS(throws_numbers, "{\"name\":1,\"message\":2,\"stack\":3}")
THROWS(throws_dollar, "{\"message\":\"m\",\"data\":{\"$what\":1}}")
THROWS(throws_code, "{\"message\":\"m\",\"code\":\"OptimisticConcurrencyControlFailure\"}")
THROWS(throws_surrogate, "{\"name\":\"Error\",\"message\":\"half \\ud800 pair\"}")
THROWS(throws_trace, "{\"message\":\"m\",\"stack\":\"    at f (/etc/passwd:1:1)\\n    at g (convex/../../../etc/shadow.js:1:1)\"}")
ATTACK(answer_at_the_end) { *(END - 1) = '7', answer_of(END - 1, 1, SKERRY_DONE); }
ATTACK(answer_past_the_end) { answer_of(END - 1, 2, SKERRY_DONE); }

/* The same three bytes over and over, as much as an answer holds: small for the guest, objects without number for a parser. */
static void flood(const char *unit, uint64_t status)
{
    size_t width = strlen(unit), length = (28u << 20) / width * width;
    char *text = malloc(length + 64);
    char *rest = text + 1;
    memcpy(rest, unit, width);
    for (size_t have = width; have < length; have *= 2)
        memcpy(rest + have, rest, have < length - have ? have : length - have);
    text[0] = '[', text[length] = ']';
    answer_of(text, length + 1, status);
}
ATTACK(returns_lists) { flood("[],", SKERRY_DONE); }
ATTACK(returns_objects) { flood("{},", SKERRY_DONE); }
ATTACK(throws_lists) { flood("[],", SKERRY_FAILED); }
ATTACK(throws_quotes) { flood("\"\",", SKERRY_FAILED); }

#define TRAPS(each) each(divides_by_zero) each(remainder_by_zero) each(overflows_division) each(truncates) each(reads_outside) \
    each(writes_outside) each(reads_across_end) each(copies_outside) each(calls_nothing) each(calls_outside_table) each(calls_as_other_type)
#define BUFFERS(each) each(out_over_argument) each(out_over_name) each(out_at_the_end) each(out_over_zero) each(take_over_itself) \
    each(grow_between) each(empty_name) each(name_with_zero) each(raw_where_none_is_taken) each(argument_wide) each(done_with_ticket_open)
#define WASI(each) each(wasi_vector_outside) each(wasi_vectors_many) each(wasi_bytes_outside) each(wasi_bytes_wrap) each(wasi_count_outside) \
    each(wasi_other_descriptors) each(wasi_random_outside) each(wasi_random_giant) each(wasi_clock_outside) each(wasi_clock_stands) \
    each(wasi_environment) each(wasi_exit)
#define ANSWERS(each) each(returns_nothing) each(returns_mark) each(returns_two) each(returns_zero_byte) each(returns_nan) each(returns_infinity) \
    each(returns_integer) each(returns_surrogate) each(returns_overlong) each(returns_keys_twice) each(returns_dollar) each(returns_dollar_escaped) \
    each(returns_integer_short) each(returns_float_plain) each(returns_bytes_crooked) each(returns_undefined) each(returns_comment) \
    each(throws_list) each(throws_numbers) each(throws_dollar) each(throws_code) each(throws_surrogate) each(throws_trace) \
    each(answer_at_the_end) each(answer_past_the_end) each(returns_lists) each(returns_objects) each(throws_lists) each(throws_quotes)
#define RESUMED(each) each(waits_twice, waits_again) each(waits_for_ever, asks_again) each(traps_when_resumed, traps_now) \
    each(takes_nothing_when_resumed, takes_again)
#define ENTRY(name) {"x:" #name, name, NULL},
#define RESUMED_ENTRY(name, resumed) {"x:" #name, name, resumed},
#define DESCRIBED(name) SKERRY_FUNCTION("x:" #name, "query") ","
#define RESUMED_DESCRIBED(name, resumed) DESCRIBED(name)
#define EVERY(each) TRAPS(each) BUFFERS(each) WASI(each) ANSWERS(each)

SKERRY_GUEST(SKERRY_DESCRIPTION(EVERY(DESCRIBED) RESUMED(RESUMED_DESCRIBED) SKERRY_FUNCTION("x:alive", "query")),
             EVERY(ENTRY) RESUMED(RESUMED_ENTRY) {"x:alive", alive, NULL})
