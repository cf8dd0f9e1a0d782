/* The common cases of JSON text, done at once: strings without escapes, and numbers that are exact in a few steps.
 *
 * Each function here says whether it could; where not, the engine's own code goes on as if nothing had been tried.
 * Included in the middle of quickjs.c (engine_build.py says where).
 */

/* Reads a string of plain ASCII whose opening quote is behind `*at`: 1 and past its end, -1 for an exception, 0 for other text. */
static int json_read_plain_string(JSContext *ctx, const uint8_t **at, const uint8_t *end, JSValue *string)
{
    const uint8_t *start = *at, *p = start;
    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20 && *p < 0x80)
        p++;
    if (p >= end || *p != '"')
        return 0;
    *string = js_new_string8_len(ctx, (const char *)start, (int)(p - start));
    *at = p + 1;
    return JS_IsException(*string) ? -1 : 1;
}

#define LONG_PLACES_MAX 8

/* The double nearest to mantissa / 10^places, where the mantissa is at least 2^53 and `places` at most LONG_PLACES_MAX: the quotient's
 * first 64 bits, the last of them set where there are more, are rounded once. Times with fractions of milliseconds are such numbers. */
static double long_decimal(uint64_t mantissa, int places)
{
    static const uint32_t POWERS[LONG_PLACES_MAX + 1] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    uint64_t whole = mantissa / POWERS[places], rest = mantissa % POWERS[places];
    int shift = clz64(whole); /* at most 37, and `rest` has 27 bits at most */
    rest <<= shift;
    whole = whole << shift | rest / POWERS[places] | (rest % POWERS[places] != 0);
    return (double)whole / (double)((uint64_t)1 << shift);
}

/* The number in a text that was found well-formed. With a mantissa below 2^53 and a power of ten below 10^23, both are exact
 * doubles and their quotient is rounded once, as it should be. A whole number that fits is kept as an int, -0 is not. */
static JSValue json_number(const uint8_t *start, const uint8_t *end)
{
    static const double POWERS[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const uint8_t *p = start + (*start == '-' || *start == '+'), *point = NULL;
    uint64_t mantissa = 0;
    if (end - p > 19)
        return js_float64(strtod((const char *)start, NULL));
    for (; p < end && (is_digit(*p) || (*p == '.' && !point)); p++) {
        if (*p == '.')
            point = p;
        else
            mantissa = mantissa * 10 + (*p - '0');
    }
    bool negative = *start == '-', is_long = mantissa > (uint64_t)1 << 53;
    int places = point ? (int)(end - point - 1) : 0;
    if (p < end || (is_long && places > LONG_PLACES_MAX))
        return js_float64(strtod((const char *)start, NULL));
    if (!point && mantissa <= INT32_MAX && (mantissa || !negative))
        return js_int32(negative ? -(int32_t)mantissa : (int32_t)mantissa);
    double number = is_long ? long_decimal(mantissa, places) : (double)mantissa / POWERS[places];
    return js_float64(negative ? -number : number);
}

/* Writes the longest run from `*at` on that needs no escape; -1 for an exception. */
static int json_write_plain_run(StringBuffer *buffer, JSString *string, int *at)
{
    int start = *at, i = start;
    if (string->is_wide_char)
        return 0;
    const uint8_t *characters = str8(string);
    while (i < (int)string->len && characters[i] >= 32 && characters[i] != '"' && characters[i] != '\\')
        i++;
    *at = i;
    return i > start ? string_buffer_write8(buffer, characters + start, i - start) : 0;
}
