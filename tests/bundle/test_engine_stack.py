"""The engine's own stack limit trips first: every deep recursion is a RangeError that the script can catch.

The machine stack here is three quarters of what the host gives (4 MiB), so what passes has a margin.
"""

import pytest

from tests.bundle.runner import STACK_BYTES, Compiled, GuestRunner

DEEP_TEXT = "const n = 200000, deep = '['.repeat(n) + ']'.repeat(n);"
NEST = "let nest = 1; for (let i = 0; i < 200000; i++) nest = [nest];"
NEST_OBJECT = "let nest = {}; for (let i = 0; i < 200000; i++) nest = {a: nest};"

RECURSIONS = {
    "plain": "const f = () => f() + 1; f();",
    "many locals": "function f(a, b, c, d) { let [e, g, ...h] = [a, b, c, d]; return f(e, g, ...h, a) + 1; } "
    "f(1, 2, 3, 4);",
    "constructor": "class A { constructor() { this.inner = new A(); } } new A();",
    "derived constructor": "class B { constructor(m) { m(); } } class A extends B { constructor() { super(() => new "
    "A()); } } new A();",
    "generator": "function* f() { yield* f(); } [...f()];",
    "getter": "const o = { get a() { return this.a; } }; o.a;",
    "setter": "const o = { set a(v) { this.a = v; } }; o.a = 1;",
    "toString": "const o = { toString() { return '' + this; } }; '' + o;",
    "valueOf": "const o = { valueOf() { return +this; } }; +o;",
    "sort comparator": "const f = () => [3, 1, 2].sort(() => { f(); return 0; }); f();",
    "map callback": "const f = () => [1].map(f); f();",
    "reduce": "const f = () => [1, 2].reduce(f); f();",
    "replace callback": "const f = () => 'a'.replace(/a/, f); f();",
    "bind chain": "let f = () => 1; for (let i = 0; i < 5000; i++) f = f.bind(null); f();",
    "apply": "function f() { return f.apply(this, arguments); } f(1);",
    "Reflect.construct": "function F() { return Reflect.construct(F, []); } F();",
    "proxy chain get": "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); p.x;",
    "proxy chain has": "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); 'x' in p;",
    "proxy chain set": "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); p.x = 1;",
    "proxy chain call": "let p = () => 1; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); p();",
    "proxy chain prototype": "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); "
    "Object.getPrototypeOf(p);",
    "proxy chain keys": "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); Object.keys(p);",
    "proxy chain isArray": "let p = []; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); Array.isArray(p);",
    "proxy prototype cycle": "const p = new Proxy({}, {}); Object.setPrototypeOf(p, p); p.x;",
    "proxy trap": "const p = new Proxy({}, { get(t, k, r) { return r[k]; } }); p.x;",
    "JSON.parse arrays": DEEP_TEXT + "JSON.parse(deep);",
    "JSON.parse objects": "JSON.parse('{\"a\":'.repeat(200000));",
    "JSON.parse reviver": "const f = () => JSON.parse('[1]', f); f();",
    "JSON.stringify": NEST + "JSON.stringify(nest);",
    "JSON.stringify objects": NEST_OBJECT + "JSON.stringify(nest);",
    "JSON.stringify toJSON": "const o = { toJSON() { return JSON.stringify(o); } }; JSON.stringify(o);",
    "flat": NEST + "nest.flat(Infinity);",
    "array toString": NEST + "String(nest);",
    "join": NEST + "nest.join();",
    "concat": "const f = () => ({ get [Symbol.isConcatSpreadable]() { return [].concat(f()); } }); [].concat(f());",
    "eval": "const f = () => eval('f()'); f();",
    "nested source": "eval('('.repeat(200000) + ')'.repeat(200000));",
    "nested arrays in source": "eval('['.repeat(200000));",
    "nested blocks": "eval('{'.repeat(200000) + '}'.repeat(200000));",
    "nested functions in source": "eval('()=>'.repeat(200000) + '1');",
    "nested templates": "eval('`${'.repeat(100000));",
    "unary chain": "eval('!'.repeat(200000) + '1');",
    "power chain": "eval('1' + '**1'.repeat(200000));",
    "destructuring in source": "eval('let ' + '['.repeat(100000) + 'a' + ']'.repeat(100000) + '=1');",
    "nested conditionals": "eval('1?'.repeat(100000) + '1' + ':1'.repeat(100000));",
    "if else chain": "eval('if(1)'.repeat(200000) + ';');",
    "regex groups": "new RegExp('('.repeat(200000) + ')'.repeat(200000));",
    "regex lookaheads": "new RegExp('(?='.repeat(200000) + ')'.repeat(200000));",
    "regex classes": "new RegExp('['.repeat(200000) + ']'.repeat(200000), 'v');",
    "instanceof": "const C = { [Symbol.hasInstance](v) { return v instanceof C; } }; 1 instanceof C;",
    "symbol toPrimitive": "const o = { [Symbol.toPrimitive]() { return `${o}`; } }; `${o}`;",
    "iterator": "const o = { [Symbol.iterator]() { return [...o]; } }; [...o];",
    "typed array from": "const f = () => Uint8Array.from([1], f); f();",
    "Array.from": "const f = () => Array.from([1], f); f();",
    "date": "const o = { valueOf() { return new Date(o).getTime(); } }; new Date(o);",
    "spread of much": "const f = (...a) => a.length; f(...new Array(500000).fill(1));",
    "apply of much": "const f = () => 1; f.apply(null, new Array(500000).fill(1));",
    "fromCharCode of much": "String.fromCharCode(...new Array(500000).fill(65));",
    "Math.max of much": "Math.max.apply(null, new Array(500000).fill(1));",
    "error cause": "const f = () => { try { f(); } finally { f(); } }; const g = () => { g(); }; g();",
}

# Deep but not recursive inside the engine: these simply work, or are refused as too deep by the bound that comes first.
HARMLESS = {
    "async recursion": "const f = async () => { await f(); }; f().catch(() => {}); 1;",
    "string concatenation": "let s = ''; for (let i = 0; i < 300000; i++) s = s + 'ab' + s.length; s.length > 0 && "
    "s[7];",
    "left concatenation": "let s = ''; for (let i = 0; i < 300000; i++) s = 'ab' + s; s.charCodeAt(70);",
    "prototype chain": "let o = {}; for (let i = 0; i < 100000; i++) o = Object.create(o); o.x;",
    "scope chain": "let f = () => 1; for (let i = 0; i < 100000; i++) { const g = f; f = () => g; } f();",
    "linked list freed": "let l = null; for (let i = 0; i < 300000; i++) l = { l }; l = null; 1;",
    "linked list collected": "let l = {}, first = l; for (let i = 0; i < 300000; i++) l = { l }; first.l = l; "
    "l = first = null; 1;",
    "promise chain": "let p = Promise.resolve(1); for (let i = 0; i < 50000; i++) p = p.then(v => v); p = null; 1;",
    "binary chain": "eval('1' + '+1'.repeat(200000));",
    "comma chain": "eval('1' + ',1'.repeat(200000));",
    "regex alternatives": "new RegExp('a|'.repeat(20000)).test('b');",
    "regex star nested": "new RegExp('(?:a?){50}'.repeat(20)).test('b');",
    "bigint digits": "(10n ** 20000n).toString().length;",
    "Map nested": "let m = new Map(); for (let i = 0; i < 100000; i++) m = new Map([[1, m]]); 1;",
}


@pytest.fixture(scope="module")
def compiled(engine: bytes) -> Compiled:
    return Compiled(engine, STACK_BYTES * 3 // 4)


@pytest.mark.parametrize("case", RECURSIONS)
def test_deep_recursion_is_a_range_error_and_the_isolate_lives_on(compiled: Compiled, case: str) -> None:
    guest = GuestRunner(compiled).boot()
    caught = "return e.name + ': ' + e.message;"
    source = f"(() => {{ try {{ {RECURSIONS[case]} }} catch (e) {{ {caught} }} return 'no error'; }})()"
    status, text = guest.eval(source)
    assert (status, text.partition(":")[0]) in [("done", "RangeError"), ("done", "SyntaxError")], text
    assert guest.eval("String([3, 1, 2].sort().map(x => x * 2))") == ("done", "2,4,6")


DEPTHS = {
    "plain": ("const f = () => { deep++; f(); };", 2500),
    "async": ("const f = async () => { deep++; await f(); };", 1000),
    "callback": ("const f = () => { deep++; [1].map(f); };", 1000),
}


@pytest.mark.parametrize("case", DEPTHS)
def test_recursion_goes_on_on_the_deep_stack(compiled: Compiled, case: str) -> None:
    define, depth_min = DEPTHS[case]
    guest = GuestRunner(compiled).boot()
    source = f"let deep = 0; {define} try {{ f()?.catch(() => {{}}); }} catch {{}} String(deep)"
    status, depth = guest.eval(source)
    assert (status, int(depth) >= depth_min) == ("done", True), depth


def test_a_call_with_many_arguments_goes_on_on_the_deep_stack(compiled: Compiled) -> None:
    guest = GuestRunner(compiled).boot()
    source = (
        "(() => { const f = ((...a) => a.length).bind(null, 1); return String(f(...new Array(30000).fill(2))); })()"
    )
    assert guest.eval(source) == ("done", "30001")


@pytest.mark.parametrize("text", ["[1]", "new RegExp('a(b)c').source", "eval('1 + 1')"])
def test_the_stacks_are_back_in_order_after_each_way_of_using_the_deep_one(compiled: Compiled, text: str) -> None:
    guest = GuestRunner(compiled).boot()
    recurse = f"let n = 0; const f = () => {{ n++; f(); }}; try {{ f(); }} catch {{}} {text}; return String(n);"
    for _ in range(3):
        status, depth = guest.eval(f"(() => {{ {recurse} }})()")
        assert (status, int(depth) >= 2500) == ("done", True), depth


@pytest.mark.parametrize("case", HARMLESS)
def test_depth_without_recursion_never_traps(compiled: Compiled, case: str) -> None:
    guest = GuestRunner(compiled).boot()
    status, result = guest.eval(HARMLESS[case])
    assert status == "done" or result["name"] in ("RangeError", "SyntaxError", "InternalError")
    assert guest.eval("String(1 + 1)") == ("done", "2")


def test_deep_recursion_inside_a_deep_call_still_reports_the_error_through_the_formatter(compiled: Compiled) -> None:
    guest = GuestRunner(compiled).boot()
    guest.eval("__skerry.setInvoker(() => { const f = () => f(); f(); });")
    guest.eval("__skerry.setUncaughtFormatter(e => JSON.stringify({ message: 'seen: ' + e.message }));")
    status, error = guest.invoke("a:b")
    assert (status, error["message"].startswith("seen: ")) == ("failed", True)
