/* Frames of docs/protocol.md: 0x00, COBS(type, sequence, length, payload, CRC-32), 0x00. Bytes in little-endian order. */
#ifndef EDGEKIT_AGENT_FRAME_H
#define EDGEKIT_AGENT_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#define EDGEKIT_MAX_PAYLOAD 1024u
#define EDGEKIT_HEADER_BYTES 5u
#define EDGEKIT_CRC_BYTES 4u

typedef struct {
    const uint8_t *payload;  /* valid until the next receive */
    uint32_t length;
    uint16_t sequence;
    uint8_t type;
} edgekit_frame;

typedef enum { EDGEKIT_RECEIVED = 0, EDGEKIT_NOTHING = 1, EDGEKIT_CLOSED = 2 } edgekit_receive_result;

/* The next good frame. Without `wait` it takes only what has already arrived. */
edgekit_receive_result edgekit_frame_receive(edgekit_frame *frame, bool wait);

/* A frame is sent in pieces, so that no second buffer of its size is needed: begin, as many put as make `length`, end. */
void edgekit_frame_begin(uint8_t type, uint16_t sequence, uint32_t length);
void edgekit_frame_put(const void *data, uint32_t size);
void edgekit_frame_put_u8(uint8_t value);
void edgekit_frame_put_u16(uint16_t value);
void edgekit_frame_put_u32(uint32_t value);
void edgekit_frame_put_u64(uint64_t value);
void edgekit_frame_end(void);

/* CRC-32 of zlib; start with 0 and pass the result on to continue. */
uint32_t edgekit_crc32(uint32_t crc, const void *data, uint32_t size);

static inline uint16_t edgekit_load_u16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | ((uint32_t)bytes[1] << 8));
}

static inline uint32_t edgekit_load_u32(const uint8_t *bytes) {
    return (uint32_t)edgekit_load_u16(bytes) | ((uint32_t)edgekit_load_u16(bytes + 2) << 16);
}

#endif
