#include "frame.h"

#include <stddef.h>

#include "port.h"

#define COBS_BLOCK 254u
#define CHUNK_BYTES 64u

/* Receiving: COBS is undone byte by byte as it arrives. `left` counts the bytes that the block still has. */
static struct {
    uint8_t data[EDGEKIT_HEADER_BYTES + EDGEKIT_MAX_PAYLOAD + EDGEKIT_CRC_BYTES];
    uint8_t chunk[CHUNK_BYTES];
    uint32_t chunk_next;
    uint32_t chunk_size;
    uint32_t size;
    uint8_t left;
    bool zero_owed;  /* the last block stands for a zero, unless the frame ends here */
    bool damaged;
} rx;

/* Sending: one COBS block at a time. block[0] is the delimiter before the frame, block[1] the block's code. */
static struct {
    uint8_t block[2u + COBS_BLOCK];
    uint32_t size;
    uint32_t crc;
    bool first;
} tx;

uint32_t edgekit_crc32(uint32_t crc, const void *data, uint32_t size) {
    /* Half a byte at a time: 64 bytes of table instead of 1024. */
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    const uint8_t *bytes = data;
    crc = ~crc;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

static void rx_restart(void) {
    rx.size = 0;
    rx.left = 0;
    rx.zero_owed = false;
    rx.damaged = false;
}

static void rx_store(uint8_t byte) {
    if (rx.size < sizeof rx.data) {
        rx.data[rx.size++] = byte;
    } else {
        rx.damaged = true;
    }
}

/* True when what was received up to a delimiter is a good frame. */
static bool rx_accept(edgekit_frame *frame) {
    if (rx.damaged || rx.left != 0u || rx.size < EDGEKIT_HEADER_BYTES + EDGEKIT_CRC_BYTES) {
        return false;
    }
    uint32_t body = rx.size - EDGEKIT_CRC_BYTES;
    if (edgekit_load_u16(rx.data + 3) != body - EDGEKIT_HEADER_BYTES) {
        return false;
    }
    if (edgekit_load_u32(rx.data + body) != edgekit_crc32(0, rx.data, body)) {
        return false;
    }
    frame->type = rx.data[0];
    frame->sequence = edgekit_load_u16(rx.data + 1);
    frame->length = body - EDGEKIT_HEADER_BYTES;
    frame->payload = rx.data + EDGEKIT_HEADER_BYTES;
    return true;
}

static bool rx_byte(uint8_t byte, edgekit_frame *frame) {
    if (byte == 0u) {
        bool good = rx_accept(frame);
        rx_restart();
        return good;
    }
    if (rx.left != 0u) {
        rx_store(byte);
        rx.left--;
        return false;
    }
    if (rx.zero_owed) {
        rx_store(0);
    }
    rx.left = (uint8_t)(byte - 1u);
    rx.zero_owed = byte != 0xFFu;
    return false;
}

edgekit_receive_result edgekit_frame_receive(edgekit_frame *frame, bool wait) {
    for (;;) {
        while (rx.chunk_next < rx.chunk_size) {
            if (rx_byte(rx.chunk[rx.chunk_next++], frame)) {
                return EDGEKIT_RECEIVED;
            }
        }
        int32_t got = edgekit_port_read(rx.chunk, CHUNK_BYTES, wait);
        if (got < 0) {
            return EDGEKIT_CLOSED;
        }
        if (got == 0) {
            return EDGEKIT_NOTHING;
        }
        rx.chunk_next = 0;
        rx.chunk_size = (uint32_t)got;
    }
}

/* Writes the block, before it the delimiter when it is the frame's first, after it `trailer` more bytes. */
static void tx_flush(uint32_t trailer) {
    uint32_t start = tx.first ? 0u : 1u;
    tx.block[0] = 0;
    tx.block[1] = (uint8_t)(tx.size + 1u);
    edgekit_port_write(tx.block + start, 2u - start + tx.size + trailer);
    tx.size = 0;
    tx.first = false;
}

static void tx_bytes(const uint8_t *bytes, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        if (bytes[i] == 0u) {
            tx_flush(0);
            continue;
        }
        tx.block[2u + tx.size++] = bytes[i];
        if (tx.size == COBS_BLOCK) {
            tx_flush(0);
        }
    }
}

void edgekit_frame_begin(uint8_t type, uint16_t sequence, uint32_t length) {
    tx.first = true;
    tx.size = 0;
    tx.crc = 0;
    edgekit_frame_put_u8(type);
    edgekit_frame_put_u16(sequence);
    edgekit_frame_put_u16((uint16_t)length);
}

void edgekit_frame_put(const void *data, uint32_t size) {
    tx.crc = edgekit_crc32(tx.crc, data, size);
    tx_bytes(data, size);
}

static void put_integer(uint64_t value, uint32_t size) {
    uint8_t bytes[8];
    for (uint32_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(value >> (8u * i));
    }
    edgekit_frame_put(bytes, size);
}

void edgekit_frame_put_u8(uint8_t value) {
    put_integer(value, 1);
}

void edgekit_frame_put_u16(uint16_t value) {
    put_integer(value, 2);
}

void edgekit_frame_put_u32(uint32_t value) {
    put_integer(value, 4);
}

void edgekit_frame_put_u64(uint64_t value) {
    put_integer(value, 8);
}

void edgekit_frame_end(void) {
    uint8_t crc[EDGEKIT_CRC_BYTES];
    for (uint32_t i = 0; i < EDGEKIT_CRC_BYTES; i++) {
        crc[i] = (uint8_t)(tx.crc >> (8u * i));
    }
    tx_bytes(crc, EDGEKIT_CRC_BYTES);
    tx.block[2u + tx.size] = 0;  /* the delimiter after the frame; a full block has been written, so there is room */
    tx_flush(1);
}
