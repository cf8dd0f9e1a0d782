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
    if (p < end || mantissa > (uint64_t)1 << 53)
        return js_float64(strtod((const char *)start, NULL));
    bool negative = *start == '-';
    if (!point && mantissa <= INT32_MAX && (mantissa || !negative))
        return js_int32(negative ? -(int32_t)mantissa : (int32_t)mantissa);
    double number = point ? (double)mantissa / POWERS[end - point - 1] : (double)mantissa;
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
