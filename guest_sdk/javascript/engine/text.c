/* JSON text of values, and values of JSON text, in one pass each.
 *
 * As in values.c, only plain data is handled, and everything else gives up before anything can be seen of the attempt: what
 * JSON.stringify and JSON.parse do on the same argument is the definition. In their Convex form, writing is
 * JSON.stringify(convexToJson(value)) and reading jsonToConvex(JSON.parse(text)).
 *
 * Documents of one table look alike: reading expects the keys of the last object at the same depth, and makes an object of
 * the same hidden class where they come.
 */
enum { FAULT = -1, UNKNOWN, OK }; /* an exception is pending; not for us; done */

#define TEXT_BYTES_INLINE 4096
#define HINT_DEPTH_MAX 8

typedef struct {
    JSContext *ctx;
    uint8_t *bytes;
    size_t length, capacity;
    bool convex, ascii;
    JSShape *plain; /* the last shape that was found plain and sorted: no guest code runs in between */
} Text;

static uint8_t text_inline[TEXT_BYTES_INLINE];

static void text_begin(Text *text, JSContext *ctx, bool convex)
{
    *text = (Text){ctx, text_inline, 0, sizeof(text_inline), convex, true, NULL};
}

static void text_end(Text *text)
{
    if (text->bytes != text_inline)
        js_free(text->ctx, text->bytes);
}

static no_inline bool text_grow(Text *text, size_t more)
{
    size_t capacity = text->capacity * 2 + more;
    uint8_t *grown = js_malloc(text->ctx, capacity);
    if (!grown)
        return false;
    memcpy(grown, text->bytes, text->length);
    text_end(text);
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

static inline bool text_room(Text *text, size_t more)
{
    return likely(text->capacity - text->length >= more) || text_grow(text, more);
}

static int text_put(Text *text, const void *bytes, size_t length)
{
    if (!text_room(text, length))
        return FAULT;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    return OK;
}

static inline int text_put_one(Text *text, char c)
{
    if (!text_room(text, 1))
        return FAULT;
    text->bytes[text->length++] = (uint8_t)c;
    return OK;
}

/* One code point as it stands in a JSON string. */
static int text_put_character(Text *text, uint32_t c)
{
    static const char SHORT[] = "btn?fr"; /* 8 to 13; 11 has none */
    if (!text_room(text, 8))
        return FAULT;
    uint8_t *out = text->bytes + text->length;
    if (c == '"' || c == '\\' || (c >= 8 && c <= 13 && c != 11)) {
        out[0] = '\\';
        out[1] = c < 32 ? (uint8_t)SHORT[c - 8] : (uint8_t)c;
        text->length += 2;
    } else if (c < 32 || is_surrogate(c)) {
        text->length += (size_t)snprintf((char *)out, 8, "\\u%04x", (unsigned)c);
    } else {
        text->ascii &= c < 0x80;
        text->length += utf8_encode(out, c);
    }
    return OK;
}

static int text_put_flat_string(Text *text, JSString *string)
{
    if (text_put_one(text, '"') < 0)
        return FAULT;
    const uint8_t *characters = string->is_wide_char ? NULL : str8(string);
    for (int at = 0, count = (int)string->len; at < count;) {
        int start = at;
        if (characters)
            while (at < count && characters[at] >= 32 && characters[at] < 0x80 && characters[at] != '"' && characters[at] != '\\')
                at++;
        if (at > start && text_put(text, characters + start, (size_t)(at - start)) < 0)
            return FAULT;
        if (at < count && text_put_character(text, (uint32_t)string_getc(string, &at)) < 0)
            return FAULT;
    }
    return text_put_one(text, '"');
}

static int text_put_string(Text *text, JSValueConst value)
{
    if (JS_VALUE_GET_TAG(value) == JS_TAG_STRING)
        return text_put_flat_string(text, JS_VALUE_GET_STRING(value));
    JSValue flat = js_linearize_string_rope(text->ctx, value);
    if (JS_IsException(flat))
        return FAULT;
    int put = text_put_flat_string(text, JS_VALUE_GET_STRING(flat));
    JS_FreeValue(text->ctx, flat);
    return put;
}

static int text_put_int(Text *text, int32_t number)
{
    char digits[12], *at = digits + sizeof(digits);
    uint32_t rest = number < 0 ? 0u - (uint32_t)number : (uint32_t)number;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        *--at = '-';
    return text_put(text, at, (size_t)(digits + sizeof(digits) - at));
}

static no_inline int text_put_double(Text *text, double number)
{
    JSDTOATempMem scratch;
    if (isnan(number) || isinf(number))
        return text_put(text, "null", 4);
    if (fabs(number) <= INT32_MAX && number == (int32_t)number)
        return text_put_int(text, (int32_t)number); /* -0 is "0" */
    if (!text_room(text, 64))
        return FAULT;
    text->length += (size_t)js_dtoa((char *)text->bytes + text->length, number, 10, 0, JS_DTOA_FORMAT_FREE, &scratch);
    return OK;
}

static int text_put_value(Text *text, JSValueConst value);

/* What the Convex form writes in another way than it is: converted first. */
static no_inline int text_put_converted(Text *text, JSValueConst value)
{
    JSValue json = text->convex ? to_json(text->ctx, value) : GIVE_UP;
    if (JS_IsUninitialized(json))
        return UNKNOWN;
    if (JS_IsException(json))
        return FAULT;
    text->convex = false;
    int put = text_put_value(text, json);
    text->convex = true;
    JS_FreeValue(text->ctx, json);
    return put;
}

static int text_put_array(Text *text, JSObject *array)
{
    int put = text_put_one(text, '[');
    for (uint32_t i = 0; i < array->u.array.count && put == OK; i++)
        if (i == 0 || (put = text_put_one(text, ',')) == OK)
            put = text_put_value(text, array->u.array.u.values[i]);
    return put == OK ? text_put_one(text, ']') : put;
}

/* Whether JSON.stringify writes just the properties of this shape, in this order. */
static bool stringifies_in_order(JSContext *ctx, JSShape *shape)
{
    JSShapeProperty *properties = get_shape_prop(shape);
    uint32_t index;
    if (shape->proto != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]))
        return false;
    for (int i = 0; i < shape->prop_count; i++) {
        JSAtom atom = properties[i].atom;
        if ((properties[i].flags & (JS_PROP_TMASK | JS_PROP_ENUMERABLE)) != JS_PROP_ENUMERABLE || atom == JS_ATOM_NULL ||
            JS_AtomIsArrayIndex(ctx, &index, atom) || key_text(ctx, atom)->atom_type != JS_ATOM_TYPE_STRING ||
            atom == JS_ATOM_toJSON)
            return false;
    }
    return true;
}

static int text_put_object(Text *text, JSObject *object)
{
    JSShape *shape = object->shape;
    bool sorted = true, first = true;
    if (text->convex && shape != text->plain) {
        if (!shape_is_plain(text->ctx, shape, &sorted) || !sorted)
            return text_put_converted(text, JS_MKPTR(JS_TAG_OBJECT, object));
        text->plain = shape;
    } else if (!text->convex && !stringifies_in_order(text->ctx, shape)) {
        return UNKNOWN;
    }
    if (text->convex && has_undefined(object))
        return text_put_converted(text, JS_MKPTR(JS_TAG_OBJECT, object));
    int put = text_put_one(text, '{');
    for (int i = 0; i < shape->prop_count && put == OK; i++) {
        JSValueConst value = object->prop[i].u.value;
        if (JS_IsUndefined(value))
            continue;
        if (!first && text_put_one(text, ',') < 0)
            return FAULT;
        first = false;
        if (text_put_flat_string(text, key_text(text->ctx, get_shape_prop(shape)[i].atom)) < 0 || text_put_one(text, ':') < 0)
            return FAULT;
        put = text_put_value(text, value);
    }
    return put == OK ? text_put_one(text, '}') : put;
}

static int text_put_value(Text *text, JSValueConst value)
{
    switch (JS_VALUE_GET_NORM_TAG(value)) {
    case JS_TAG_NULL:
        return text_put(text, "null", 4);
    case JS_TAG_BOOL:
        return JS_VALUE_GET_BOOL(value) ? text_put(text, "true", 4) : text_put(text, "false", 5);
    case JS_TAG_INT:
        return text_put_int(text, JS_VALUE_GET_INT(value));
    case JS_TAG_FLOAT64:
        if (text->convex && is_special_float(JS_VALUE_GET_FLOAT64(value)))
            return text_put_converted(text, value);
        return text_put_double(text, JS_VALUE_GET_FLOAT64(value));
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        return text_put_string(text, value);
    case JS_TAG_OBJECT: {
        JSObject *object = JS_VALUE_GET_OBJ(value);
        if (js_check_stack_overflow(text->ctx->rt, 0))
            return UNKNOWN;
        if (is_plain_array(text->ctx, object))
            return text_put_array(text, object);
        if (object->class_id == JS_CLASS_OBJECT && !object->is_exotic)
            return text_put_object(text, object);
        return text_put_converted(text, value);
    }
    default:
        return text_put_converted(text, value);
    }
}

/* Writes the value; UNKNOWN also where a `toJSON` could be found on a plain object's or array's prototype. */
static int text_of_value(Text *text, JSValueConst value)
{
    static const int PROTOTYPES[] = {JS_CLASS_OBJECT, JS_CLASS_ARRAY};
    for (size_t i = 0; i < countof(PROTOTYPES); i++)
        if (find_own_property1(JS_VALUE_GET_OBJ(text->ctx->class_proto[PROTOTYPES[i]]), JS_ATOM_toJSON))
            return UNKNOWN;
    JSObject *array_prototype = JS_VALUE_GET_OBJ(text->ctx->class_proto[JS_CLASS_ARRAY]);
    if (array_prototype->shape->proto != JS_VALUE_GET_OBJ(text->ctx->class_proto[JS_CLASS_OBJECT]))
        return UNKNOWN;
    return text_put_value(text, value);
}

static JSValue string_of_text(Text *text)
{
    const char *bytes = (const char *)text->bytes;
    if (text->ascii && text->length <= INT32_MAX / 2)
        return js_new_string8_len(text->ctx, bytes, (int)text->length);
    return JS_NewStringLen(text->ctx, bytes, text->length);
}

/* -- reading -------------------------------------------------------------------------------------------------------- */

typedef struct {
    JSContext *ctx;
    const uint8_t *at, *end; /* a zero byte lies at the end */
    bool convex;
    int depth;
    JSShape *hints[HINT_DEPTH_MAX]; /* of objects that were made in this text and are in it */
    JSShape *plain;
} Reader;

static int read_value(Reader *reader, JSValue *value);

static inline uint8_t read_past_spaces(Reader *reader)
{
    while (*reader->at == ' ')
        reader->at++;
    return *reader->at;
}

/* A string with UTF-8 or the short escapes: `at` is behind the opening quote. */
static no_inline int read_escaped_string(Reader *reader, JSValue *value)
{
    static const char ESCAPED[] = "\"\\/bfnrt", PLAIN[] = "\"\\/\b\f\n\r\t";
    const uint8_t *p = reader->at;
    while (p < reader->end && *p != '"')
        p += *p == '\\' ? 2 : 1;
    if (p >= reader->end)
        return UNKNOWN;
    char *bytes = js_malloc(reader->ctx, (size_t)(p - reader->at) + 1), *out = bytes;
    if (!bytes)
        return FAULT;
    for (p = reader->at; *p != '"'; p++) {
        bool escaped = *p == '\\';
        const char *escape = escaped && *++p ? strchr(ESCAPED, *p) : NULL;
        if (escaped ? !escape : *p < 32) {
            js_free(reader->ctx, bytes);
            return UNKNOWN;
        }
        *out++ = escape ? PLAIN[escape - ESCAPED] : (char)*p;
    }
    reader->at = p + 1;
    *value = JS_NewStringLen(reader->ctx, bytes, (size_t)(out - bytes));
    js_free(reader->ctx, bytes);
    return JS_IsException(*value) ? FAULT : OK;
}

static int read_string(Reader *reader, JSValue *value)
{
    int read = json_read_plain_string(reader->ctx, &reader->at, reader->end, value);
    return read ? read : read_escaped_string(reader, value);
}

static const uint8_t *past_digits(const uint8_t *p)
{
    while (is_digit(*p))
        p++;
    return p;
}

static int read_number(Reader *reader, JSValue *value)
{
    const uint8_t *start = reader->at, *p = start + (*start == '-'), *whole = p;
    p = past_digits(p);
    if (p == whole || (*whole == '0' && p > whole + 1))
        return UNKNOWN;
    if (*p == '.') {
        const uint8_t *fraction = p + 1;
        if ((p = past_digits(fraction)) == fraction)
            return UNKNOWN;
    }
    if (*p == 'e' || *p == 'E') {
        const uint8_t *exponent = p + 1 + (p[1] == '+' || p[1] == '-');
        if ((p = past_digits(exponent)) == exponent)
            return UNKNOWN;
    }
    *value = json_number(start, p);
    reader->at = p;
    return OK;
}

static int read_word(Reader *reader, const char *word, size_t length, JSValue known, JSValue *value)
{
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0)
        return UNKNOWN;
    reader->at += length;
    *value = known;
    return OK;
}

static int read_array(Reader *reader, JSValue *value)
{
    JSValue array = JS_NewArray(reader->ctx);
    if (JS_IsException(array))
        return FAULT;
    int read = OK;
    reader->at++;
    if (read_past_spaces(reader) == ']') {
        reader->at++;
        *value = array;
        return OK;
    }
    for (;;) {
        JSValue item;
        if ((read = read_value(reader, &item)) != OK)
            break;
        if (add_fast_array_element(reader->ctx, JS_VALUE_GET_OBJ(array), item, 0) < 0) {
            read = FAULT;
            break;
        }
        uint8_t next = read_past_spaces(reader);
        if (next != ',' && next != ']') {
            read = UNKNOWN;
            break;
        }
        reader->at++;
        if (next == ']') {
            *value = array;
            return OK;
        }
    }
    JS_FreeValue(reader->ctx, array);
    return read;
}

/* Reads `"key":` where it is the expected one. */
static bool read_expected_key(Reader *reader, JSString *key)
{
    read_past_spaces(reader);
    const uint8_t *p = reader->at;
    size_t length = key->len;
    if ((size_t)(reader->end - p) < length + 3 || p[0] != '"' || memcmp(p + 1, str8(key), length) != 0 || p[length + 1] != '"')
        return false;
    p += length + 2;
    while (*p == ' ')
        p++;
    if (*p != ':')
        return false;
    reader->at = p + 1;
    return true;
}

/* Reads the properties that the shape foresees, as far as they come, into `object`; `*count` says how many did. */
static int read_expected_properties(Reader *reader, JSShape *shape, JSObject *object, int *count, bool *ended)
{
    for (*count = 0; *count < shape->prop_count; ++*count) {
        JSValue item;
        if (!read_expected_key(reader, key_text(reader->ctx, get_shape_prop(shape)[*count].atom)))
            return OK;
        int read = read_value(reader, &item);
        if (read != OK)
            return read;
        object->prop[*count].u.value = item;
        uint8_t next = read_past_spaces(reader);
        reader->at++;
        if (next != ',') {
            ++*count;
            *ended = true;
            return next == '}' ? OK : UNKNOWN;
        }
    }
    return OK;
}

/* Reads `"key":` and makes the atom; plain ASCII alone. */
static int read_key(Reader *reader, JSAtom *key)
{
    if (read_past_spaces(reader) != '"')
        return UNKNOWN;
    const uint8_t *start = ++reader->at, *p = start;
    while (*p >= 32 && *p < 0x80 && *p != '"' && *p != '\\')
        p++;
    if (*p != '"')
        return UNKNOWN;
    reader->at = p + 1;
    if (read_past_spaces(reader) != ':')
        return UNKNOWN;
    reader->at++;
    *key = JS_NewAtomLen(reader->ctx, (const char *)start, (size_t)(p - start));
    return *key == JS_ATOM_NULL ? FAULT : OK;
}

/* Adds what is left of an object after its first properties, from a key on; `*indexed`: a key was an array index. */
static int read_other_properties(Reader *reader, JSValueConst object, bool *indexed)
{
    JSContext *ctx = reader->ctx;
    for (;;) {
        JSAtom key;
        JSValue item;
        uint32_t index;
        int read = read_key(reader, &key);
        if (read != OK)
            return read;
        if ((read = read_value(reader, &item)) != OK) {
            JS_FreeAtom(ctx, key);
            return read;
        }
        *indexed |= JS_AtomIsArrayIndex(ctx, &index, key);
        JSObject *p = JS_VALUE_GET_OBJ(object);
        /* A key that comes twice would free what a hint may be of. */
        JSProperty *property = find_own_property1(p, key) ? NULL : add_property(ctx, p, key, JS_PROP_C_W_E);
        if (property) {
            property->u.value = item;
        } else {
            JS_FreeValue(ctx, item);
            read = JS_HasException(ctx) ? FAULT : UNKNOWN;
        }
        JS_FreeAtom(ctx, key);
        if (read != OK)
            return read;
        uint8_t next = read_past_spaces(reader);
        reader->at++;
        if (next != ',')
            return next == '}' ? OK : UNKNOWN;
    }
}

/* A new object with the first properties of another, which are moved. */
static JSValue object_of_first(JSContext *ctx, JSObject *from, int count)
{
    JSValue object = JS_NewObject(ctx);
    for (int i = 0; i < count && !JS_IsException(object); i++) {
        JSProperty *property = add_property(ctx, JS_VALUE_GET_OBJ(object), get_shape_prop(from->shape)[i].atom, JS_PROP_C_W_E);
        if (!property) {
            JS_FreeValue(ctx, object);
            return JS_EXCEPTION;
        }
        property->u.value = from->prop[i].u.value;
        from->prop[i].u.value = JS_UNDEFINED;
    }
    return object;
}

/* The object's value in Convex form: itself where its keys are plain. */
static int finish_object(Reader *reader, JSValue *value)
{
    JSObject *object = JS_VALUE_GET_OBJ(*value);
    bool sorted;
    if (!reader->convex || object->shape == reader->plain)
        return OK;
    if (shape_is_plain(reader->ctx, object->shape, &sorted)) {
        reader->plain = object->shape;
        return OK;
    }
    JSValue meant = value_of_tagged(reader->ctx, object);
    JS_FreeValue(reader->ctx, *value);
    *value = meant;
    return JS_IsUninitialized(meant) ? UNKNOWN : JS_IsException(meant) ? FAULT : OK;
}

static int read_object(Reader *reader, JSValue *value)
{
    JSContext *ctx = reader->ctx;
    int depth = reader->depth, read = OK, count = 0;
    JSShape *hint = depth < HINT_DEPTH_MAX ? reader->hints[depth] : NULL;
    bool ended = false, indexed = false;
    JSValue object = hint ? JS_NewObjectFromShape(ctx, js_dup_shape(hint), JS_CLASS_OBJECT, NULL) : JS_NewObject(ctx);
    if (JS_IsException(object))
        return FAULT;
    reader->at++;
    reader->depth++;
    if (hint) {
        for (int i = 0; i < hint->prop_count; i++)
            JS_VALUE_GET_OBJ(object)->prop[i].u.value = JS_UNDEFINED;
        read = read_expected_properties(reader, hint, JS_VALUE_GET_OBJ(object), &count, &ended);
        if (read == OK && !(ended && count == hint->prop_count)) {
            JSValue shorter = object_of_first(ctx, JS_VALUE_GET_OBJ(object), count);
            JS_FreeValue(ctx, object);
            if (JS_IsException(object = shorter))
                return FAULT;
        }
    }
    if (read == OK && !ended) {
        if (count == 0 && read_past_spaces(reader) == '}')
            reader->at++;
        else
            read = read_other_properties(reader, object, &indexed);
    }
    if (read != OK) {
        JS_FreeValue(ctx, object);
        return read;
    }
    reader->depth--;
    JSShape *shape = JS_VALUE_GET_OBJ(object)->shape;
    *value = object;
    read = finish_object(reader, value);
    if (read == OK && depth < HINT_DEPTH_MAX && JS_VALUE_GET_TAG(*value) == JS_TAG_OBJECT)
        reader->hints[depth] = !indexed && shape->is_hashed && shape->prop_count && JS_VALUE_GET_OBJ(*value)->shape == shape ? shape : NULL;
    return read;
}

static int read_value(Reader *reader, JSValue *value)
{
    uint8_t first = read_past_spaces(reader);
    switch (first) {
    case '"':
        reader->at++;
        return read_string(reader, value);
    case '{':
    case '[':
        if (js_check_stack_overflow(reader->ctx->rt, 0))
            return UNKNOWN;
        return first == '{' ? read_object(reader, value) : read_array(reader, value);
    case 'n':
        return read_word(reader, "null", 4, JS_NULL, value);
    case 't':
        return read_word(reader, "true", 4, JS_TRUE, value);
    case 'f':
        return read_word(reader, "false", 5, JS_FALSE, value);
    default:
        return read_number(reader, value);
    }
}

/* Reads a whole text, which a zero byte follows. */
static int value_of_text(JSContext *ctx, const char *bytes, size_t length, bool convex, JSValue *value)
{
    Reader reader = {.ctx = ctx, .at = (const uint8_t *)bytes, .end = (const uint8_t *)bytes + length, .convex = convex};
    int read = read_value(&reader, value);
    if (read == OK) {
        read_past_spaces(&reader);
        if (reader.at == reader.end)
            return OK;
        JS_FreeValue(ctx, *value);
        return UNKNOWN;
    }
    return read;
}
