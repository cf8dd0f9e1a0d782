/* Convex values to and from their JSON form, without running JavaScript.
 *
 * The functions of the package's `values/value.js` stay the definition. Each native function here first walks its argument
 * looking at plain data only: primitives, arrays and objects as literals and JSON.parse make them, ArrayBuffers. Whatever is
 * anything else (a getter, a Proxy, a class instance, a reserved or malformed key, an error of any kind) makes it give up,
 * and then the package's own function runs on the same argument. Walking plain data runs no guest code and changes
 * nothing, so nobody can tell that it was tried. Therefore no error text and no odd case is written twice.
 *
 * A converted object shares the hidden class (shape) of its source where the keys are already what they have to be.
 */
#define FIELD_NAME_CHARS_MAX 1024
#define SHAPES_KNOWN_MAX 16
#define GIVE_UP JS_UNINITIALIZED

enum { TO_CONVEX, TO_CONVEX_TEXT, TO_JSON, TO_JSON_TEXT, PATCH_TO_JSON, OPTIONAL_TO_JSON, CONVERSIONS };

static const char *const CONVERSION_NAMES[CONVERSIONS] = {
    "jsonToConvex", "jsonTextToConvex", "convexToJson", "convexToJsonText", "patchValueToJson", "convexOrUndefinedToJson",
};

enum { TAG_BYTES, TAG_INTEGER, TAG_FLOAT, TAG_UNDEFINED, TAGS };

static const char *const TAG_NAMES[TAGS] = {"$bytes", "$integer", "$float", "$undefined"};
static JSAtom tag_atoms[TAGS];

/* Shapes whose keys were found plain. Each is referenced here, so it is neither freed nor changed under us. */
static struct {
    JSShape *shape;
    bool sorted;
} known_shapes[SHAPES_KNOWN_MAX];

/* -- keys ---------------------------------------------------------------------------------------------------------- */

static JSString *key_text(JSContext *ctx, JSAtom atom)
{
    return ctx->rt->atom_array[atom];
}

/* Whether the key is a valid field name that keeps its place among an object's keys (an array index does not). */
static bool is_plain_key(JSContext *ctx, JSAtom atom)
{
    uint32_t index;
    if (JS_AtomIsArrayIndex(ctx, &index, atom))
        return false;
    JSString *text = key_text(ctx, atom);
    if (text->atom_type != JS_ATOM_TYPE_STRING || text->is_wide_char || text->len > FIELD_NAME_CHARS_MAX)
        return false;
    const uint8_t *bytes = str8(text);
    for (uint32_t i = 0; i < text->len; i++)
        if (bytes[i] < 32 || bytes[i] >= 127)
            return false;
    return text->len == 0 || bytes[0] != '$';
}

static int compare_keys(JSContext *ctx, JSAtom left, JSAtom right)
{
    JSString *a = key_text(ctx, left), *b = key_text(ctx, right);
    int order = memcmp(str8(a), str8(b), a->len < b->len ? a->len : b->len);
    return order ? order : (int)a->len - (int)b->len;
}

/* Whether assigning this key to a new object does something other than adding it (`__proto__`, or a tampered prototype). */
static bool prototype_interferes(JSContext *ctx, JSAtom atom)
{
    JSObject *prototype = JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]);
    JSShapeProperty *found = find_own_property1(prototype, atom);
    return found && (found->flags & (JS_PROP_TMASK | JS_PROP_WRITABLE)) != JS_PROP_WRITABLE;
}

static bool keys_are_plain(JSContext *ctx, JSShape *shape, bool *sorted)
{
    JSShapeProperty *properties = get_shape_prop(shape);
    *sorted = true;
    for (int i = 0; i < shape->prop_count; i++) {
        if ((properties[i].flags & (JS_PROP_TMASK | JS_PROP_C_W_E)) != JS_PROP_C_W_E || !is_plain_key(ctx, properties[i].atom))
            return false;
        if (i && compare_keys(ctx, properties[i - 1].atom, properties[i].atom) > 0)
            *sorted = false;
    }
    return true;
}

/* Whether objects of this shape are plain data with valid keys, and could have been made by assigning those in order. */
static bool shape_is_plain(JSContext *ctx, JSShape *shape, bool *sorted)
{
    size_t slot = ((uintptr_t)shape >> 3) % SHAPES_KNOWN_MAX;
    if (known_shapes[slot].shape != shape) {
        if (!shape->is_hashed || shape->deleted_prop_count || !keys_are_plain(ctx, shape, sorted))
            return false;
        js_free_shape_null(ctx->rt, known_shapes[slot].shape);
        known_shapes[slot].shape = js_dup_shape(shape);
        known_shapes[slot].sorted = *sorted;
    }
    *sorted = known_shapes[slot].sorted;
    if (shape->proto != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT]))
        return false;
    JSShapeProperty *properties = get_shape_prop(shape);
    for (int i = 0; i < shape->prop_count; i++)
        if (prototype_interferes(ctx, properties[i].atom))
            return false;
    return true;
}

/* -- base64 -------------------------------------------------------------------------------------------------------- */

static const char BASE64_DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static JSValue base64_of(JSContext *ctx, const uint8_t *bytes, size_t length)
{
    if (length > INT32_MAX / 4 * 3 - 4)
        return GIVE_UP;
    JSString *text = js_alloc_string(ctx, (int)((length + 2) / 3 * 4), 0);
    if (!text)
        return JS_EXCEPTION;
    uint8_t *out = str8(text);
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = bytes[i] << 16 | (left > 1 ? bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        *out++ = BASE64_DIGITS[group >> 18];
        *out++ = BASE64_DIGITS[group >> 12 & 63];
        *out++ = left > 1 ? BASE64_DIGITS[group >> 6 & 63] : '=';
        *out++ = left > 2 ? BASE64_DIGITS[group & 63] : '=';
    }
    *out = 0;
    return JS_MKPTR(JS_TAG_STRING, text);
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

/* Decodes well-formed base64 into `out`; -1 for anything else, and for more than `capacity` bytes. */
static ptrdiff_t base64_bytes(const char *text, size_t length, uint8_t *out, size_t capacity)
{
    size_t padding = length && text[length - 1] == '=' ? 1 + (length > 1 && text[length - 2] == '=') : 0;
    if (length % 4 || length / 4 * 3 - padding > capacity)
        return -1;
    size_t written = 0, digits = length - padding;
    uint32_t group = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0)
            return -1;
        group = group << 6 | (uint32_t)digit;
        if (i % 4 == 3) {
            out[written++] = group >> 16;
            out[written++] = group >> 8;
            out[written++] = group;
        }
    }
    if (padding == 1) {
        out[written++] = group >> 10;
        out[written++] = group >> 2;
    } else if (padding == 2) {
        out[written++] = group >> 4;
    }
    return (ptrdiff_t)written;
}

/* -- from JSON ------------------------------------------------------------------------------------------------------ */

static bool is_special_float(double number)
{
    return isnan(number) || isinf(number) || (number == 0 && signbit(number));
}

static JSValue bytes_of_base64(JSContext *ctx, const char *text, size_t length)
{
    uint8_t *bytes = js_malloc(ctx, length + 1);
    if (!bytes)
        return JS_EXCEPTION;
    ptrdiff_t size = base64_bytes(text, length, bytes, length);
    JSValue value = size < 0 ? GIVE_UP : JS_NewArrayBufferCopy(ctx, bytes, (size_t)size);
    js_free(ctx, bytes);
    return value;
}

static JSValue number_of_base64(JSContext *ctx, int tag, const char *text, size_t length)
{
    uint8_t bytes[8];
    int64_t integer;
    double number;
    if (base64_bytes(text, length, bytes, sizeof(bytes)) != sizeof(bytes))
        return GIVE_UP;
    memcpy(&integer, bytes, sizeof(integer));
    memcpy(&number, bytes, sizeof(number));
    if (tag == TAG_INTEGER)
        return JS_NewBigInt64(ctx, integer);
    return is_special_float(number) ? js_float64(number) : GIVE_UP;
}

/* The value of an object with one key, if that is one of the tags and its text is well-formed. */
static JSValue value_of_tagged(JSContext *ctx, JSObject *object)
{
    JSShapeProperty *property = get_shape_prop(object->shape);
    if (object->shape->prop_count != 1 || (property->flags & (JS_PROP_TMASK | JS_PROP_C_W_E)) != JS_PROP_C_W_E)
        return GIVE_UP;
    int tag = 0;
    while (tag < TAG_UNDEFINED && tag_atoms[tag] != property->atom)
        tag++;
    if (tag == TAG_UNDEFINED || !JS_IsString(object->prop[0].u.value))
        return GIVE_UP;
    size_t length;
    const char *text = JS_ToCStringLen(ctx, &length, object->prop[0].u.value);
    if (!text)
        return JS_EXCEPTION;
    JSValue value = tag == TAG_BYTES ? bytes_of_base64(ctx, text, length) : number_of_base64(ctx, tag, text, length);
    JS_FreeCString(ctx, text);
    return value;
}

/* Not one whose length says more than it holds (`new Array(5)`): its holes are the package's to write. */
static bool is_plain_array(JSContext *ctx, JSObject *object)
{
    if (object->class_id != JS_CLASS_ARRAY || !object->fast_array || object->shape != ctx->array_shape)
        return false;
    JSValue length = object->prop[0].u.value;
    return JS_VALUE_GET_TAG(length) == JS_TAG_INT && (uint32_t)JS_VALUE_GET_INT(length) == object->u.array.count;
}

static bool is_primitive_json(JSValueConst value)
{
    switch (JS_VALUE_GET_NORM_TAG(value)) {
    case JS_TAG_NULL:
    case JS_TAG_BOOL:
    case JS_TAG_INT:
    case JS_TAG_FLOAT64:
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        return true;
    default:
        return false;
    }
}

typedef JSValue Convert(JSContext *ctx, JSValueConst value);

static JSValue convert_array(JSContext *ctx, JSObject *source, Convert *convert)
{
    uint32_t count = source->u.array.count;
    JSValue result = js_allocate_fast_array(ctx, count);
    if (JS_IsException(result))
        return result;
    JSValue *out = JS_VALUE_GET_OBJ(result)->u.array.u.values;
    for (uint32_t i = 0; i < count; i++) {
        JSValue item = convert(ctx, source->u.array.u.values[i]);
        if (JS_IsException(item) || JS_IsUninitialized(item)) {
            JS_FreeValue(ctx, result);
            return item;
        }
        out[i] = item;
    }
    return result;
}

/* A plain object of the source's own shape with converted values. */
static JSValue convert_object(JSContext *ctx, JSObject *source, Convert *convert)
{
    JSShape *shape = source->shape;
    JSValue result = JS_NewObjectFromShape(ctx, js_dup_shape(shape), JS_CLASS_OBJECT, NULL);
    if (JS_IsException(result))
        return result;
    JSProperty *out = JS_VALUE_GET_OBJ(result)->prop;
    for (int i = 0; i < shape->prop_count; i++)
        out[i].u.value = JS_UNDEFINED;
    for (int i = 0; i < shape->prop_count; i++) {
        JSValue item = convert(ctx, source->prop[i].u.value);
        if (JS_IsException(item) || JS_IsUninitialized(item)) {
            JS_FreeValue(ctx, result);
            return item;
        }
        out[i].u.value = item;
    }
    return result;
}

static JSValue from_json(JSContext *ctx, JSValueConst value)
{
    bool sorted;
    if (is_primitive_json(value))
        return js_dup(value);
    if (!JS_IsObject(value) || js_check_stack_overflow(ctx->rt, 0))
        return GIVE_UP;
    JSObject *object = JS_VALUE_GET_OBJ(value);
    if (is_plain_array(ctx, object))
        return convert_array(ctx, object, from_json);
    if (object->class_id != JS_CLASS_OBJECT || object->is_exotic)
        return GIVE_UP;
    return shape_is_plain(ctx, object->shape, &sorted) ? convert_object(ctx, object, from_json) : value_of_tagged(ctx, object);
}

/* -- to JSON -------------------------------------------------------------------------------------------------------- */

static JSValue tagged(JSContext *ctx, int tag, JSValue value)
{
    if (JS_IsException(value) || JS_IsUninitialized(value))
        return value;
    JSValue result = JS_NewObject(ctx);
    if (!JS_IsException(result))
        JS_DefinePropertyValue(ctx, result, tag_atoms[tag], value, JS_PROP_C_W_E);
    return result;
}

static JSValue tagged_number(JSContext *ctx, int tag, const void *bytes)
{
    return tagged(ctx, tag, base64_of(ctx, bytes, 8));
}

static JSValue json_of_bigint(JSContext *ctx, JSValueConst value)
{
    int64_t integer;
    if (JS_VALUE_GET_TAG(value) == JS_TAG_BIG_INT) {
        JSBigInt *big = JS_VALUE_GET_PTR(value);
        if (big->len > 64 / JS_LIMB_BITS) /* kept in two's complement without needless limbs */
            return GIVE_UP;
    }
    if (JS_ToBigInt64(ctx, &integer, value))
        return JS_EXCEPTION;
    return tagged_number(ctx, TAG_INTEGER, &integer);
}

static JSValue json_of_array_buffer(JSContext *ctx, JSValueConst value)
{
    JSObject *object = JS_VALUE_GET_OBJ(value);
    if (object->shape->proto != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_ARRAY_BUFFER]) || object->u.array_buffer->detached)
        return GIVE_UP;
    size_t length;
    uint8_t *bytes = JS_GetArrayBuffer(ctx, &length, value);
    return tagged(ctx, TAG_BYTES, base64_of(ctx, bytes, length));
}

static JSValue to_json(JSContext *ctx, JSValueConst value);

/* The properties of a plain object that have values (or all, in a patch) as indexes in the order of their keys; -1 to give up. */
static int ordered_properties(JSContext *ctx, JSObject *object, bool patch, uint16_t *order)
{
    JSShapeProperty *properties = get_shape_prop(object->shape);
    int count = 0;
    for (int i = 0; i < object->shape->prop_count; i++) {
        JSAtom atom = properties[i].atom;
        if (atom == JS_ATOM_NULL)
            continue;
        if ((properties[i].flags & (JS_PROP_TMASK | JS_PROP_ENUMERABLE)) != JS_PROP_ENUMERABLE || !is_plain_key(ctx, atom))
            return -1;
        if (JS_IsUndefined(object->prop[i].u.value) && !patch)
            continue;
        if (prototype_interferes(ctx, atom))
            return -1;
        int place = count++;
        for (; place && compare_keys(ctx, properties[order[place - 1]].atom, atom) > 0; place--)
            order[place] = order[place - 1];
        order[place] = i;
    }
    return count;
}

#define ORDERED_PROPERTIES_MAX 256 /* insertion sort; larger objects are left to the package */

static JSValue json_of_object(JSContext *ctx, JSObject *object, bool patch)
{
    uint16_t order[ORDERED_PROPERTIES_MAX];
    if (object->shape->prop_count > ORDERED_PROPERTIES_MAX)
        return GIVE_UP;
    int count = ordered_properties(ctx, object, patch, order);
    JSValue result = count < 0 ? GIVE_UP : JS_NewObject(ctx);
    if (JS_IsException(result) || JS_IsUninitialized(result))
        return result;
    for (int i = 0; i < count; i++) {
        JSValueConst value = object->prop[order[i]].u.value;
        JSValue item = JS_IsUndefined(value) ? tagged(ctx, TAG_UNDEFINED, JS_NULL) : to_json(ctx, value);
        if (JS_IsException(item) || JS_IsUninitialized(item)) {
            JS_FreeValue(ctx, result);
            return item;
        }
        JSAtom atom = get_shape_prop(object->shape)[order[i]].atom;
        JSProperty *property = add_property(ctx, JS_VALUE_GET_OBJ(result), atom, JS_PROP_C_W_E);
        if (!property) {
            JS_FreeValue(ctx, item);
            JS_FreeValue(ctx, result);
            return JS_EXCEPTION;
        }
        property->u.value = item;
    }
    return result;
}

static bool has_undefined(JSObject *object)
{
    for (int i = 0; i < object->shape->prop_count; i++)
        if (JS_IsUndefined(object->prop[i].u.value))
            return true;
    return false;
}

static no_inline JSValue json_of_plain_object(JSContext *ctx, JSObject *object, bool patch)
{
    bool sorted;
    JSObject *prototype = object->shape->proto;
    if (object->is_exotic || (prototype && prototype != JS_VALUE_GET_OBJ(ctx->class_proto[JS_CLASS_OBJECT])))
        return GIVE_UP;
    if (shape_is_plain(ctx, object->shape, &sorted) && sorted && !has_undefined(object))
        return convert_object(ctx, object, to_json);
    return json_of_object(ctx, object, patch);
}

static JSValue json_of(JSContext *ctx, JSValueConst value, bool patch)
{
    int kind = JS_VALUE_GET_NORM_TAG(value);
    if (kind == JS_TAG_FLOAT64) {
        double number = JS_VALUE_GET_FLOAT64(value);
        return is_special_float(number) ? tagged_number(ctx, TAG_FLOAT, &number) : js_dup(value);
    }
    if (is_primitive_json(value))
        return js_dup(value);
    if (kind == JS_TAG_SHORT_BIG_INT || kind == JS_TAG_BIG_INT)
        return json_of_bigint(ctx, value);
    if (kind != JS_TAG_OBJECT || js_check_stack_overflow(ctx->rt, 0))
        return GIVE_UP;
    JSObject *object = JS_VALUE_GET_OBJ(value);
    if (is_plain_array(ctx, object))
        return convert_array(ctx, object, to_json);
    if (object->class_id == JS_CLASS_OBJECT)
        return json_of_plain_object(ctx, object, patch);
    return object->class_id == JS_CLASS_ARRAY_BUFFER ? json_of_array_buffer(ctx, value) : GIVE_UP;
}

static JSValue to_json(JSContext *ctx, JSValueConst value)
{
    return json_of(ctx, value, false);
}
