/* The trivial query as a C guest: what an isolate costs without a JavaScript engine in it. */
#include "skerry.h"

static void add(skerry_call *call)
{
    skerry_done(skerry_text("%g", skerry_number_argument(call, "x") + skerry_number_argument(call, "y")));
}

SKERRY_GUEST(SKERRY_DESCRIPTION(SKERRY_FUNCTION("app:add", "query")), {"app:add", add})
