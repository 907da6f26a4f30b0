/* Entry points: unpack the array of integers that Python passes. */
static inline tensor NAME(next_tensor)(const int64_t **p) {
    tensor x = {(char *)(intptr_t)(*p)[0], (*p)[1], (*p)[2], (*p)[3]};
    *p += 4;
    return x;
}

static inline REAL *NAME(next_array)(const int64_t **p) { return (REAL *)(intptr_t) * (*p)++; }

static NAME(scan) NAME(scan_from)(const int64_t **p) {
    NAME(scan) call;
    call.batch = (*p)[0], call.length = (*p)[1], call.width = (*p)[2], call.states = (*p)[3];
    call.softplus = (*p)[4], call.directions = (*p)[5];
    *p += 6;
    call.z = NAME(next_tensor)(p), call.out = NAME(next_tensor)(p);
    for (int i = 0; i < call.directions; i++) {
        NAME(direction) *dir = &call.dir[i];
        dir->u = NAME(next_tensor)(p), dir->delta = NAME(next_tensor)(p);
        dir->B = NAME(next_tensor)(p), dir->C = NAME(next_tensor)(p);
        dir->A = NAME(next_array)(p), dir->D = NAME(next_array)(p), dir->bias = NAME(next_array)(p);
        dir->checkpoints = NAME(next_array)(p), dir->last_state = NAME(next_array)(p);
        dir->reverse = *(*p)++;
    }
    return call;
}

void NAME(genzoo_scan_forward)(const int64_t *p, int64_t threads) {
    NAME(scan) call = NAME(scan_from)(&p);
    NAME(forward)(&call, (int)threads);
}

/* What Python needs to allocate: channels of a block, blocks of a group, steps of a tile. */
void NAME(genzoo_scan_sizes)(int64_t *sizes) { sizes[0] = BLOCK, sizes[1] = GROUP, sizes[2] = TILE; }

void NAME(genzoo_scan_backward)(const int64_t *p, int64_t threads) {
    NAME(scan) call = NAME(scan_from)(&p);
    NAME(gradients) grads;
    grads.out = NAME(next_tensor)(&p), grads.z = NAME(next_tensor)(&p);
    for (int i = 0; i < call.directions; i++) {
        NAME(gradient) *dir = &grads.dir[i];
        dir->u = NAME(next_tensor)(&p), dir->delta = NAME(next_tensor)(&p);
        dir->B = NAME(next_array)(&p), dir->C = NAME(next_array)(&p);
        dir->A = NAME(next_array)(&p), dir->D = NAME(next_array)(&p), dir->bias = NAME(next_array)(&p);
        dir->last_state = NAME(next_array)(&p);
    }
    NAME(backward)(&call, &grads, (int)threads);
}

static NAME(conv) NAME(conv_from)(const int64_t **p) {
    NAME(conv) call;
    memset(&call, 0, sizeof call);
    call.batch = (*p)[0], call.length = (*p)[1], call.width = (*p)[2];
    call.taps = (*p)[3], call.silu = (*p)[4], call.reverse = (*p)[5];
    *p += 6;
    call.x = NAME(next_tensor)(p), call.out = NAME(next_tensor)(p);
    call.weight = NAME(next_array)(p), call.bias = NAME(next_array)(p);
    return call;
}

void NAME(genzoo_conv_forward)(const int64_t *p, int64_t threads) {
    NAME(conv) call = NAME(conv_from)(&p);
    NAME(conv_run)(&call, 0, (int)threads);
}

void NAME(genzoo_conv_backward)(const int64_t *p, int64_t threads) {
    NAME(conv) call = NAME(conv_from)(&p);
    call.dx = NAME(next_tensor)(&p);
    call.dweight = NAME(next_array)(&p), call.dbias = NAME(next_array)(&p);
    NAME(conv_run)(&call, 1, (int)threads);
}

static NAME(adaln) NAME(adaln_from)(const int64_t **p) {
    NAME(adaln) call;
    memset(&call, 0, sizeof call);
    call.length = (*p)[0], call.width = (*p)[1], call.rows = (*p)[2], call.conditions = (*p)[3];
    memcpy(&call.eps, *p + 4, sizeof call.eps);
    *p += 5;
    tensor *parts[] = {&call.x, &call.branch, &call.gate, &call.shift, &call.scale, &call.x1, &call.out};
    for (int i = 0; i < 7; i++) *parts[i] = NAME(next_tensor)(p);
    call.mean = NAME(next_array)(p), call.r = NAME(next_array)(p);
    return call;
}

void NAME(genzoo_adaln_forward)(const int64_t *p, int64_t threads) {
    NAME(adaln) call = NAME(adaln_from)(&p);
    NAME(adaln_run)(&call, 0, (int)threads);
}

void NAME(genzoo_adaln_backward)(const int64_t *p, int64_t threads) {
    NAME(adaln) call = NAME(adaln_from)(&p);
    call.dx = NAME(next_tensor)(&p), call.dbranch = NAME(next_tensor)(&p);
    call.slots = NAME(next_array)(&p);
    NAME(adaln_run)(&call, 1, (int)threads);
}

/* Rows of a piece, each of which has a slot for its sums. */
void NAME(genzoo_adaln_rows)(int64_t *rows) { *rows = ADALN_ROWS; }

/* With a gradient in the fourth place the result is that of x. */
void NAME(genzoo_gelu)(const int64_t *p, int64_t threads) {
    NAME(gelu) call;
    call.count = *p++;
    call.x = NAME(next_tensor)(&p), call.out = NAME(next_tensor)(&p), call.grad = NAME(next_tensor)(&p);
    NAME(gelu_run)(&call, (int)threads);
}

void NAME(genzoo_group_norm)(const int64_t *p, int64_t threads) {
    NAME(group_norm) call;
    call.samples = p[0], call.pixels = p[1], call.channels = p[2], call.groups = p[3], call.silu = p[4];
    memcpy(&call.eps, p + 5, sizeof call.eps);
    p += 6;
    call.x = NAME(next_tensor)(&p), call.out = NAME(next_tensor)(&p);
    call.weight = NAME(next_array)(&p), call.bias = NAME(next_array)(&p);
    NAME(group_norm_run)(&call, (int)threads);
}

static NAME(heads) NAME(next_heads)(const int64_t **p) {
    NAME(heads) x = {NAME(next_tensor)(p), 0};
    x.head_stride = *(*p)++;
    return x;
}

void NAME(genzoo_attention_backward)(const int64_t *p, int64_t threads) {
    NAME(attention) call;
    double scale;
    call.batch = p[0], call.heads = p[1], call.rows = p[2], call.keys = p[3], call.width = p[4];
    memcpy(&scale, p + 5, sizeof scale);
    call.scale = (REAL)scale;
    p += 6;
    NAME(heads) *parts[] = {&call.q, &call.k, &call.v, &call.out, &call.grad, &call.bias, &call.dq, &call.dk, &call.dv};
    for (int i = 0; i < 9; i++) *parts[i] = NAME(next_heads)(&p);
    call.sums = NAME(next_array)(&p);
    NAME(attention_run)(&call, (int)threads);
}
