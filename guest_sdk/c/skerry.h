/* Skerry for C guests: the guest ABI (guest_sdk/ABI.md) in one header, without a JSON library.
 *
 * A guest defines its functions and its description, and names one entry:
 *
 *     static void add(skerry_call *call) { skerry_done(skerry_number_argument(call, "a") + 1); }
 *     SKERRY_GUEST(DESCRIPTION, {"numbers:add", add})
 *
 * Text is built in one fixed buffer with `skerry_text`, a small printf-like writer; nothing is ever freed, because an
 * isolate lives for one call. Arguments are looked up by key in the JSON text as it stands: enough for flat objects.
 */
#ifndef SKERRY_H
#define SKERRY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKERRY_IMPORT(name) __attribute__((import_module("skerry"), import_name(name)))
#define SKERRY_EXPORT(name) __attribute__((export_name(name), used))

SKERRY_IMPORT("hostcall")
uint64_t skerry_import_hostcall(const void *op, size_t op_length, const void *arg, size_t arg_length, const void *raw,
                                size_t raw_length, void *out, size_t out_capacity);
SKERRY_IMPORT("take") size_t skerry_import_take(void *buffer, size_t capacity);

enum { SKERRY_DONE, SKERRY_FAILED, SKERRY_PENDING };
enum { SKERRY_ANSWERED, SKERRY_REFUSED, SKERRY_TICKET };

#define SKERRY_TEXT_BYTES (64 * 1024)

typedef struct {
    uint32_t kind;
    char *name, *request_id, *arguments; /* each ends with a zero byte */
} skerry_call;

typedef struct {
    int status;
    size_t length; /* or the ticket's number */
    char *bytes;   /* ends with a zero byte */
} skerry_answer;

typedef struct {
    const char *name;
    void (*run)(skerry_call *call);
    void (*resumed)(uint32_t ticket, skerry_answer answer); /* for functions that hold tickets */
} skerry_function;

static uint64_t skerry_result;
static const skerry_function *skerry_running;

/* A new text, formatted as printf does; cut at SKERRY_TEXT_BYTES. It takes just its own length: an isolate whose memory has to grow
 * for one text costs its call twice. */
static inline char *skerry_text(const char *format, ...)
{
    static char formatted[SKERRY_TEXT_BYTES];
    va_list given;
    va_start(given, format);
    int length = vsnprintf(formatted, sizeof(formatted), format, given);
    va_end(given);
    size_t bytes = length < 0 ? 0 : length < SKERRY_TEXT_BYTES ? (size_t)length : SKERRY_TEXT_BYTES - 1;
    char *text = malloc(bytes + 1);
    memcpy(text, formatted, bytes);
    text[bytes] = 0;
    return text;
}

static inline uint64_t skerry_pack(uint64_t status, const void *bytes, size_t length)
{
    return status << 60 | (uint64_t)(length & 0x0fffffff) << 32 | (uint32_t)(uintptr_t)bytes;
}

static inline void skerry_done(const char *json)
{
    skerry_result = skerry_pack(SKERRY_DONE, json, strlen(json));
}

static inline void skerry_failed(const char *error_json)
{
    skerry_result = skerry_pack(SKERRY_FAILED, error_json, strlen(error_json));
}

static inline void skerry_pending(void)
{
    skerry_result = skerry_pack(SKERRY_PENDING, NULL, 0);
}

/* Runs an operation with a JSON text and raw bytes. */
static inline skerry_answer skerry_hostcall_raw(const char *op, const char *arg, const void *raw, size_t raw_length)
{
    static char small[4096];
    uint64_t packed =
        skerry_import_hostcall(op, strlen(op), arg, strlen(arg), raw, raw_length, small, sizeof(small));
    skerry_answer answer = {(int)(packed >> 60), (uint32_t)packed, NULL};
    if (answer.status == SKERRY_TICKET)
        return answer;
    answer.bytes = calloc(answer.length + 1, 1);
    if (answer.length <= sizeof(small))
        memcpy(answer.bytes, small, answer.length);
    else
        skerry_import_take(answer.bytes, answer.length);
    return answer;
}

static inline skerry_answer skerry_hostcall(const char *op, const char *arg)
{
    return skerry_hostcall_raw(op, arg, NULL, 0);
}

/* Sleeps: an action's function is resumed with the ticket. `id` is a number of the guest's choice. */
static inline skerry_answer skerry_sleep(uint32_t id, uint32_t ms)
{
    return skerry_hostcall("timer/start", skerry_text("{\"id\":%u,\"ms\":%u}", id, ms));
}

/* Begins a fetch, for actions: the ticket brings the head as JSON. `headers` is the JSON of pairs, `body` may be NULL. */
static inline skerry_answer skerry_fetch(uint32_t id, const char *method, const char *url, const char *headers, const void *body,
                                         size_t body_length)
{
    const char *about = "{\"id\":%u,\"method\":\"%s\",\"url\":\"%s\",\"headers\":%s,\"redirect\":\"follow\",\"body\":\"%s\"}";
    char *argument = skerry_text(about, id, method, url, headers, body ? "bytes" : "none");
    return skerry_hostcall_raw("fetch/start", argument, body, body_length);
}

/* The body of a fetch whose head has come, as raw bytes: all of it, or the next chunk (empty at the end). */
static inline skerry_answer skerry_fetch_read(uint32_t id, bool whole)
{
    return skerry_hostcall("fetch/read", skerry_text("{\"id\":%u,\"whole\":%s}", id, whole ? "true" : "false"));
}

/* Ends the call with what a hostcall answered. */
static inline void skerry_end_with(skerry_answer answer)
{
    skerry_result = skerry_pack(answer.status == SKERRY_ANSWERED ? SKERRY_DONE : SKERRY_FAILED, answer.bytes, answer.length);
}

/* The JSON text that follows `"key":` in the arguments, up to the end of the value where it is flat; "null" without one. */
static inline char *skerry_argument(const skerry_call *call, const char *key)
{
    char *found = strstr(call->arguments, skerry_text("\"%s\":", key));
    if (!found)
        return "null";
    char *value = found + strlen(key) + 3;
    size_t length = *value == '"' ? (size_t)(strchr(value + 1, '"') - value) + 1 : strcspn(value, ",}]");
    return skerry_text("%.*s", (int)length, value);
}

static inline double skerry_number_argument(const skerry_call *call, const char *key)
{
    return strtod(skerry_argument(call, key), NULL);
}

static inline char *skerry_slice(const char *bytes, size_t length)
{
    char *text = calloc(length + 1, 1);
    memcpy(text, bytes, length);
    return text;
}

static inline uint64_t skerry_invoke(const skerry_function *functions, size_t count, size_t request_length)
{
    char *request = malloc(request_length + 1);
    uint32_t header[4];
    skerry_import_take(request, request_length);
    memcpy(header, request, sizeof(header));
    const char *name = request + sizeof(header);
    skerry_call call = {header[0], skerry_slice(name, header[1]), skerry_slice(name + header[1], header[2]),
                        skerry_slice(name + header[1] + header[2], header[3])};
    skerry_failed("{\"message\":\"The guest has no such function\"}");
    for (size_t i = 0; i < count; i++) {
        if (strcmp(functions[i].name, call.name) == 0) {
            skerry_done("null");
            skerry_running = &functions[i];
            functions[i].run(&call);
        }
    }
    return skerry_result;
}

static inline uint64_t skerry_resume(size_t completions_length)
{
    char *bytes = malloc(completions_length);
    uint32_t count, headers[3];
    skerry_import_take(bytes, completions_length);
    memcpy(&count, bytes, sizeof(count));
    const char *payload = bytes + 4 + count * sizeof(headers);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(headers, bytes + 4 + i * sizeof(headers), sizeof(headers));
        skerry_answer answer = {(int)headers[1], headers[2], skerry_slice(payload, headers[2])};
        payload += headers[2];
        skerry_running->resumed(headers[0], answer);
    }
    return skerry_result;
}

/* The ABI's exports over a description (JSON text) and a list of functions. */
#define SKERRY_GUEST(description, ...)                                                                 \
    SKERRY_EXPORT("skerry_abi_version") int32_t skerry_abi_version(void) { return 1; }                 \
    SKERRY_EXPORT("describe") uint64_t skerry_describe(void)                                           \
    {                                                                                                  \
        return skerry_pack(SKERRY_DONE, description, strlen(description));                             \
    }                                                                                                  \
    static const skerry_function skerry_functions[] = {__VA_ARGS__};                                   \
    SKERRY_EXPORT("invoke") uint64_t skerry_invoke_export(size_t length)                               \
    {                                                                                                  \
        return skerry_invoke(skerry_functions, sizeof(skerry_functions) / sizeof(*skerry_functions), length); \
    }                                                                                                  \
    SKERRY_EXPORT("resume") uint64_t skerry_resume_export(size_t length) { return skerry_resume(length); }

/* One function's entry in a description. */
#define SKERRY_FUNCTION(name, kind)                                                                    \
    "{\"name\":\"" name "\",\"kind\":\"" kind "\",\"visibility\":\"public\",\"args\":{\"type\":\"any\"},\"returns\":null}"
#define SKERRY_DESCRIPTION(functions) \
    "{\"abi\":1,\"language\":\"c\",\"functions\":[" functions "],\"schema\":null,\"features\":[]}"

#endif
