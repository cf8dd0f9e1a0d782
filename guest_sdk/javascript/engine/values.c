static JSValue js_bind_values(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv)
{
    return js_dup(argv[0]);
}
