#include "agent.h"

#include <stddef.h>
#include <string.h>

#include "edgekit_port.h"
#include "edgekit_program.h"
#include "frame.h"
#include "port.h"

#define PROTOCOL_VERSION 1u
#define NAME_BYTES 64u
#define PAINT 0xA5u
#define UNKNOWN 0xFFFFFFFFu
#define NONE 0xFFFFu
#define REPLY 0x80u
#define SEQUENCE_WINDOW 64u
#define SESSIONS_REMEMBERED 4u

enum {
    HELLO = 0x01,
    PING = 0x02,
    PROGRAM = 0x03,
    TENSOR = 0x04,
    WRITE_INPUT = 0x05,
    RUN = 0x06,
    READ_OUTPUT = 0x07,
    OPERATORS = 0x08,
    HIGH_WATER = 0x09,
    PROGRESS = 0xC0,
    ERROR = 0xE0,
    FAULT = 0xE1
};

typedef enum {
    DONE = 0,
    BAD_TYPE = 1,
    BAD_PROGRAM = 2,
    BAD_RANGE = 3,
    BAD_LENGTH = 4,
    BUSY = 5,
    NO_SESSION = 6,
    STALE = 7,
    BAD_VERSION = 8
} status;

enum { RUN_MEASURE = 1, RUN_OUTPUTS = 2 };
enum { RECORD_TICKS = 1, RECORD_CHECKSUMS = 2 };

static struct {
    enum { CLOSED, OPEN, OTHER_VERSION } state;
    uint32_t nonce;
    uint32_t earlier[SESSIONS_REMEMBERED];  /* nonces; 0 is none */
    uint8_t oldest;                         /* of them */
    uint16_t last;                          /* sequence */
} session;

/* The request under way; fault handlers read it. */
static struct {
    volatile uint16_t sequence;
    volatile uint16_t program;
    volatile uint16_t operator_index;
    uint8_t type;
} now = {0, NONE, NONE, 0};

/* The result of the last RUN or OPERATORS: a repeat is answered from here and does not run again. */
static struct {
    uint64_t ticks;
    const edgekit_program *program;
    uint32_t size;  /* of `values` */
    uint16_t sequence;
    uint16_t flags;
    uint8_t type;   /* 0 when there is none */
    uint8_t values[EDGEKIT_MAX_PAYLOAD];
} kept;

static const edgekit_program *painted;  /* the program whose arena tells its high-water mark */
static edgekit_fault last_fault;

static void send_error(const edgekit_frame *frame, status code) {
    edgekit_frame_begin(ERROR, frame->sequence, 2);
    edgekit_frame_put_u8((uint8_t)code);
    edgekit_frame_put_u8(frame->type);
    edgekit_frame_end();
}

static void send_fault(uint16_t sequence) {
    edgekit_frame_begin(FAULT, sequence, 32);
    edgekit_frame_put_u8(last_fault.kind);
    edgekit_frame_put_u8(last_fault.number);
    edgekit_frame_put_u16(now.program);
    edgekit_frame_put_u16(now.operator_index);
    edgekit_frame_put_u16(0);
    edgekit_frame_put_u64(last_fault.pc);
    edgekit_frame_put_u32(last_fault.cfsr);
    edgekit_frame_put_u32(last_fault.hfsr);
    edgekit_frame_put_u64(last_fault.address);
    edgekit_frame_end();
}

static void send_hello(uint16_t sequence, uint32_t nonce) {
    static const uint8_t no_hash[EDGEKIT_HASH_BYTES] = {0};
    static const char name[] = EDGEKIT_BOARD_NAME;
    uint32_t name_size = sizeof name - 1u;
    if (name_size > NAME_BYTES) {
        name_size = NAME_BYTES;
    }
    edgekit_frame_begin(HELLO | REPLY, sequence, 12u + EDGEKIT_HASH_BYTES + name_size);
    edgekit_frame_put_u8(PROTOCOL_VERSION);
    edgekit_frame_put_u8(PROTOCOL_VERSION);
    edgekit_frame_put_u16(EDGEKIT_MAX_PAYLOAD);
    edgekit_frame_put_u16(edgekit_program_count);
    edgekit_frame_put_u8(edgekit_port_tick_bits());
    edgekit_frame_put_u8(0);
    edgekit_frame_put_u32(nonce);
    edgekit_frame_put(edgekit_program_count != 0u ? edgekit_programs[0]->hash : no_hash, EDGEKIT_HASH_BYTES);
    edgekit_frame_put(name, name_size);
    edgekit_frame_end();
}

static void send_progress(uint16_t sequence, uint16_t operator_index) {
    edgekit_frame_begin(PROGRESS, sequence, 2);
    edgekit_frame_put_u16(operator_index);
    edgekit_frame_end();
}

static void send_same(const edgekit_frame *frame) {
    edgekit_frame_begin((uint8_t)(frame->type | REPLY), frame->sequence, frame->length);
    edgekit_frame_put(frame->payload, frame->length);
    edgekit_frame_end();
}

static void paint_stack(void) {
    uint8_t *limit;
    uint8_t *top;
    volatile uint8_t here = 0;
    if (!edgekit_platform_stack(&limit, &top)) {
        return;
    }
    /* 256 bytes below this frame stay: the compiler may keep things there (x86-64 has a red zone of 128). */
    uintptr_t deepest = (uintptr_t)&here - 256u;
    if (deepest <= (uintptr_t)limit || deepest >= (uintptr_t)top) {
        return;
    }
    for (volatile uint8_t *byte = limit; (uintptr_t)byte < deepest; byte++) {
        *byte = PAINT;
    }
}

static uint32_t stack_high_water(void) {
    uint8_t *limit;
    uint8_t *top;
    if (!edgekit_platform_stack(&limit, &top)) {
        return UNKNOWN;
    }
    const volatile uint8_t *byte = limit;
    while (byte < top && *byte == PAINT) {
        byte++;
    }
    return (uint32_t)((uintptr_t)top - (uintptr_t)byte);
}

static bool in_input(const edgekit_program *program, const uint8_t *byte) {
    for (uint32_t i = 0; i < program->input_count; i++) {
        const uint8_t *start = program->inputs[i].data;
        if (byte >= start && byte < start + program->inputs[i].size) {
            return true;
        }
    }
    return false;
}

static void paint_arena(const edgekit_program *program) {
    for (uint32_t i = 0; i < program->arena_size; i++) {
        if (!in_input(program, program->arena + i)) {
            program->arena[i] = PAINT;
        }
    }
    painted = program;
}

static uint32_t arena_high_water(const edgekit_program *program) {
    if (painted != program) {
        return UNKNOWN;
    }
    uint32_t end = program->arena_size;
    while (end > 0u && program->arena[end - 1u] == PAINT && !in_input(program, program->arena + end - 1u)) {
        end--;
    }
    return end;
}

static uint64_t ticks_since(uint64_t start) {
    uint64_t difference = edgekit_port_ticks() - start;
    uint8_t bits = edgekit_port_tick_bits();
    return bits >= 64u ? difference : difference & (((uint64_t)1 << bits) - 1u);
}

static uint32_t outputs_size(const edgekit_program *program) {
    uint32_t total = 0;
    for (uint32_t i = 0; i < program->output_count; i++) {
        if (program->outputs[i].size > EDGEKIT_MAX_PAYLOAD - total) {
            return UNKNOWN;
        }
        total += program->outputs[i].size;
    }
    return total;
}

static void send_kept(void) {
    uint32_t size = kept.size;
    bool outputs = false;
    if (kept.type == RUN) {
        uint32_t total = outputs_size(kept.program);
        outputs = (kept.flags & RUN_OUTPUTS) != 0u && total <= EDGEKIT_MAX_PAYLOAD - 8u;
        size = outputs ? 8u + total : 8u;
    }
    edgekit_frame_begin((uint8_t)(kept.type | REPLY), kept.sequence, size);
    if (kept.type == RUN) {
        edgekit_frame_put_u64(kept.ticks);
        for (uint32_t i = 0; outputs && i < kept.program->output_count; i++) {
            edgekit_frame_put(kept.program->outputs[i].data, kept.program->outputs[i].size);
        }
    } else {
        edgekit_frame_put(kept.values, kept.size);
    }
    edgekit_frame_end();
}

/* Between two operators: show that the agent is alive to whoever asks. */
static void answer_meanwhile(uint16_t operator_index) {
    edgekit_frame frame;
    while (edgekit_frame_receive(&frame, false) == EDGEKIT_RECEIVED) {
        if (frame.type == now.type && frame.sequence == now.sequence) {
            send_progress(frame.sequence, operator_index);
        } else if (frame.type == PING) {
            send_same(&frame);
        } else {
            send_error(&frame, BUSY);
        }
    }
}

static void keep_value(uint64_t value, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        kept.values[kept.size++] = (uint8_t)(value >> (8u * i));
    }
}

static uint32_t output_checksum(const edgekit_operator *operation) {
    const uint8_t *run = operation->output;
    uint32_t checksum = 0;
    for (uint32_t done = 0; done < operation->output_size; done += operation->run_size) {
        checksum = edgekit_crc32(checksum, run, operation->run_size);
        run += operation->run_pitch;
    }
    return checksum;
}

/* Runs all operators in order and returns the sum of their ticks; records `what` of `count` of them from `first`. */
static uint64_t run_operators(const edgekit_program *program, uint8_t what, uint32_t first, uint32_t count) {
    uint64_t total = 0;
    for (uint16_t i = 0; i < program->operator_count; i++) {
        const edgekit_operator *operation = &program->operators[i];
        bool recorded = i >= first && i - first < count;
        if (i != 0u && what != 0u) {
            send_progress(now.sequence, i);
        }
        answer_meanwhile(i);
        now.operator_index = i;
        uint64_t start = edgekit_port_ticks();
        operation->run();
        uint64_t ticks = ticks_since(start);
        now.operator_index = NONE;
        total += ticks;
        if (recorded && what == RECORD_TICKS) {
            keep_value(ticks, 8);
        } else if (recorded && what == RECORD_CHECKSUMS) {
            keep_value(output_checksum(operation), 4);
        }
    }
    return total;
}

static void run_begins(const edgekit_frame *frame, uint16_t program) {
    kept.type = 0;
    now.type = frame->type;
    now.program = program;
    if (painted != edgekit_programs[program]) {
        painted = NULL;
    }
    send_progress(frame->sequence, 0);
}

static void run_ended(const edgekit_program *program, uint16_t flags, uint64_t ticks) {
    now.program = NONE;
    kept.program = program;
    kept.flags = flags;
    kept.ticks = ticks;
    kept.sequence = now.sequence;
    kept.type = now.type;
    send_kept();
}

static status handle_program(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length != 2u) {
        return BAD_LENGTH;
    }
    edgekit_frame_begin(PROGRAM | REPLY, frame->sequence, EDGEKIT_HASH_BYTES + 12u);
    edgekit_frame_put(program->hash, EDGEKIT_HASH_BYTES);
    edgekit_frame_put_u16(program->input_count);
    edgekit_frame_put_u16(program->output_count);
    edgekit_frame_put_u16(program->operator_count);
    edgekit_frame_put_u16(0);
    edgekit_frame_put_u32(program->arena_size);
    edgekit_frame_end();
    return DONE;
}

static status handle_tensor(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length != 6u) {
        return BAD_LENGTH;
    }
    uint8_t direction = frame->payload[2];
    uint16_t index = edgekit_load_u16(frame->payload + 4);
    uint32_t count = direction == 0u ? program->input_count : program->output_count;
    if (direction > 1u || index >= count) {
        return BAD_RANGE;
    }
    const edgekit_tensor *tensor = direction == 0u ? &program->inputs[index] : &program->outputs[index];
    uint32_t scale;
    memcpy(&scale, &tensor->scale, sizeof scale);
    edgekit_frame_begin(TENSOR | REPLY, frame->sequence, 16u + 4u * tensor->rank);
    edgekit_frame_put_u8(tensor->dtype);
    edgekit_frame_put_u8(tensor->rank);
    edgekit_frame_put_u16(0);
    edgekit_frame_put_u32(tensor->size);
    edgekit_frame_put_u32(scale);
    edgekit_frame_put_u32((uint32_t)tensor->zero_point);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        edgekit_frame_put_u32(tensor->shape[i]);
    }
    edgekit_frame_end();
    return DONE;
}

static status handle_write_input(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length < 8u) {
        return BAD_LENGTH;
    }
    uint16_t index = edgekit_load_u16(frame->payload + 2);
    uint32_t offset = edgekit_load_u32(frame->payload + 4);
    uint32_t size = frame->length - 8u;
    if (index >= program->input_count) {
        return BAD_RANGE;
    }
    const edgekit_tensor *input = &program->inputs[index];
    if (size > input->size || offset > input->size - size) {
        return BAD_RANGE;
    }
    if (painted != program) {
        painted = NULL;
    }
    memcpy((uint8_t *)input->data + offset, frame->payload + 8, size);
    edgekit_frame_begin(WRITE_INPUT | REPLY, frame->sequence, 0);
    edgekit_frame_end();
    return DONE;
}

/* Where `data` holds all inputs one after the other, they are copied into their places. */
static status take_inputs(const edgekit_program *program, const uint8_t *data, uint32_t size) {
    uint32_t left = size;
    for (uint32_t i = 0; i < program->input_count; i++) {
        if (program->inputs[i].size > left) {
            return BAD_LENGTH;
        }
        left -= program->inputs[i].size;
    }
    if (left != 0u) {
        return BAD_LENGTH;
    }
    for (uint32_t i = 0; i < program->input_count; i++) {
        memcpy(program->inputs[i].data, data, program->inputs[i].size);
        data += program->inputs[i].size;
    }
    return DONE;
}

static status handle_run(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length < 4u) {
        return BAD_LENGTH;
    }
    uint16_t flags = edgekit_load_u16(frame->payload + 2);
    if ((flags & ~(uint32_t)(RUN_MEASURE | RUN_OUTPUTS)) != 0u) {
        return BAD_RANGE;
    }
    if (frame->length > 4u && take_inputs(program, frame->payload + 4, frame->length - 4u) != DONE) {
        return BAD_LENGTH;
    }
    run_begins(frame, edgekit_load_u16(frame->payload));
    uint64_t ticks;
    if ((flags & RUN_MEASURE) != 0u) {
        paint_arena(program);
        uint64_t start = edgekit_port_ticks();
        program->run();
        ticks = ticks_since(start);
    } else {
        ticks = run_operators(program, 0, 0, 0);
    }
    run_ended(program, flags, ticks);
    return DONE;
}

static status handle_read_output(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length != 10u) {
        return BAD_LENGTH;
    }
    uint16_t index = edgekit_load_u16(frame->payload + 2);
    uint32_t offset = edgekit_load_u32(frame->payload + 4);
    uint32_t count = edgekit_load_u16(frame->payload + 8);
    if (index >= program->output_count || count > EDGEKIT_MAX_PAYLOAD) {
        return BAD_RANGE;
    }
    const edgekit_tensor *output = &program->outputs[index];
    if (count > output->size || offset > output->size - count) {
        return BAD_RANGE;
    }
    edgekit_frame_begin(READ_OUTPUT | REPLY, frame->sequence, count);
    edgekit_frame_put((const uint8_t *)output->data + offset, count);
    edgekit_frame_end();
    return DONE;
}

static status handle_operators(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length != 8u) {
        return BAD_LENGTH;
    }
    uint8_t what = frame->payload[2];
    uint32_t first = edgekit_load_u16(frame->payload + 4);
    uint32_t count = edgekit_load_u16(frame->payload + 6);
    if ((what != RECORD_TICKS && what != RECORD_CHECKSUMS) || count > EDGEKIT_MAX_PAYLOAD / 8u ||
        first + count > program->operator_count) {
        return BAD_RANGE;
    }
    run_begins(frame, edgekit_load_u16(frame->payload));
    kept.size = 0;
    uint64_t ticks = run_operators(program, what, first, count);
    run_ended(program, 0, ticks);
    return DONE;
}

static status handle_high_water(const edgekit_frame *frame, const edgekit_program *program) {
    if (frame->length != 2u) {
        return BAD_LENGTH;
    }
    edgekit_frame_begin(HIGH_WATER | REPLY, frame->sequence, 8);
    edgekit_frame_put_u32(stack_high_water());
    edgekit_frame_put_u32(arena_high_water(program));
    edgekit_frame_end();
    return DONE;
}

static bool is_earlier_session(uint32_t nonce) {
    for (uint32_t i = 0; i < SESSIONS_REMEMBERED; i++) {
        if (session.earlier[i] == nonce) {
            return true;
        }
    }
    return false;
}

static status handle_hello(const edgekit_frame *frame) {
    if (frame->length != 6u) {
        return BAD_LENGTH;
    }
    uint32_t nonce = edgekit_load_u32(frame->payload + 2);
    if (nonce == 0u) {
        return BAD_RANGE;
    }
    if (is_earlier_session(nonce)) {
        return STALE;
    }
    if (session.state == CLOSED || session.nonce != nonce) {
        session.earlier[session.oldest] = session.nonce;
        session.oldest = (uint8_t)((session.oldest + 1u) % SESSIONS_REMEMBERED);
        bool common = frame->payload[0] <= PROTOCOL_VERSION && frame->payload[1] >= PROTOCOL_VERSION;
        session.state = common ? OPEN : OTHER_VERSION;
        session.nonce = nonce;
        session.last = frame->sequence;
        kept.type = 0;
    }
    send_hello(frame->sequence, nonce);
    return DONE;
}

static status handle_program_request(const edgekit_frame *frame) {
    typedef status (*handler)(const edgekit_frame *frame, const edgekit_program *program);
    static const handler handlers[] = {
        [PROGRAM] = handle_program,         [TENSOR] = handle_tensor,           [WRITE_INPUT] = handle_write_input,
        [RUN] = handle_run,                 [READ_OUTPUT] = handle_read_output, [OPERATORS] = handle_operators,
        [HIGH_WATER] = handle_high_water,
    };
    if (frame->type < PROGRAM || frame->type > HIGH_WATER) {
        return BAD_TYPE;
    }
    if (frame->length < 2u) {
        return BAD_LENGTH;
    }
    uint16_t index = edgekit_load_u16(frame->payload);
    if (index >= edgekit_program_count) {
        return BAD_PROGRAM;
    }
    return handlers[frame->type](frame, edgekit_programs[index]);
}

static status handle(const edgekit_frame *frame) {
    if (frame->type == HELLO) {
        return handle_hello(frame);
    }
    if (session.state != OPEN) {
        return session.state == CLOSED ? NO_SESSION : BAD_VERSION;
    }
    uint16_t ahead = (uint16_t)(frame->sequence - session.last);
    if (ahead >= SEQUENCE_WINDOW) {
        return STALE;
    }
    session.last = frame->sequence;
    now.sequence = frame->sequence;
    if (kept.type != 0u && kept.type == frame->type && kept.sequence == frame->sequence) {
        send_kept();
        return DONE;
    }
    if (frame->type == PING) {
        send_same(frame);
        return DONE;
    }
    return handle_program_request(frame);
}

void edgekit_agent_serve(void) {
    edgekit_frame frame;
    paint_stack();
    edgekit_port_init();
    send_hello(0, 0);
    while (edgekit_frame_receive(&frame, true) == EDGEKIT_RECEIVED) {
        status result = handle(&frame);
        if (result != DONE) {
            send_error(&frame, result);
        }
    }
}

void edgekit_agent_fault(const edgekit_fault *fault) {
    last_fault = *fault;
    send_fault(now.sequence);
}

void edgekit_agent_serve_fault(void) {
    edgekit_frame frame;
    while (edgekit_frame_receive(&frame, true) == EDGEKIT_RECEIVED) {
        if (frame.type == HELLO) {
            return;
        }
        send_fault(frame.sequence);
    }
}
