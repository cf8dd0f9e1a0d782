/* Math.random: a generator of ours (xoshiro256**), seeded by the host at first use in a call.
 *
 * The state never travels in a snapshot: freezing forgets the seed, so no two calls share a sequence, and a call that
 * draws nothing never asks the host.
 */
static struct {
    bool seeded;
    uint64_t state[4];
} generator;

static uint64_t rotate_left(uint64_t word, int count)
{
    return (word << count) | (word >> (64 - count));
}

static uint64_t draw(void)
{
    uint64_t *s = generator.state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

static bool seed_generator(JSContext *ctx)
{
    static const char OP[] = "entropy", ARGUMENT[] = "{\"length\":32}";
    Answer answer;
    if (!hostcall(ctx, OP, sizeof(OP) - 1, ARGUMENT, sizeof(ARGUMENT) - 1, NULL, 0, &answer))
        return false;
    if (answer.status == REFUSED) {
        value_of_answer(ctx, answer.status, answer.bytes, answer.length, false);
        return false;
    }
    if (answer.status != ANSWERED || answer.length != sizeof(generator.state)) {
        JS_ThrowTypeError(ctx, "the host gave no seed");
        return false;
    }
    memcpy(generator.state, answer.bytes, sizeof(generator.state));
    generator.state[0] |= 1; /* the all-zero state would stay zero */
    generator.seeded = true;
    return true;
}

static JSValue skerry_math_random(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    if (!generator.seeded && !seed_generator(ctx))
        return JS_EXCEPTION;
    return js_float64((double)(draw() >> 11) * 0x1p-53);
}
