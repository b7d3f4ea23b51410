/* STM32F446 at 180 MHz from its HSE, one USART, the DWT cycle counter. Sections are those of ST's RM0390
 * ("STM32F446xx advanced Arm-based 32-bit MCUs") and of the Armv7-M Architecture Reference Manual.
 *
 * Options: uart ("USART2"), tx and rx ("PA2"), hse_hz, hse_bypass. */
#include <stdbool.h>
#include <stdint.h>

#include "edgekit_port.h"
#include "port.h"

#define CORE_HZ 180000000u
#define APB1_HZ (CORE_HZ / 4u) /* 6.3.3: at most 45 MHz */
#define APB2_HZ (CORE_HZ / 2u) /* 6.3.3: at most 90 MHz */

#if EDGEKIT_CLOCK_HZ != 180000000
#error "stm32f4.c sets the core to 180 MHz: [clock] hz has to say so"
#endif

/* 6.3.2: HSE / M must be 1 to 2 MHz (2 MHz for the least jitter), times N is the VCO's 360 MHz, over P = 2. */
#if EDGEKIT_PORT_HSE_HZ % 2000000 == 0
#define PLL_M (EDGEKIT_PORT_HSE_HZ / 2000000u)
#define PLL_N 180u
#elif EDGEKIT_PORT_HSE_HZ % 1000000 == 0
#define PLL_M (EDGEKIT_PORT_HSE_HZ / 1000000u)
#define PLL_N 360u
#else
#error "stm32f4.c makes 180 MHz of whole megahertz only: hse_hz"
#endif

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* 2.2.2: memory map. */
#define FLASH_ACR REGISTER(0x40023C00u)
#define PWR_CR REGISTER(0x40007000u)
#define PWR_CSR REGISTER(0x40007004u)
#define RCC_CR REGISTER(0x40023800u)
#define RCC_PLLCFGR REGISTER(0x40023804u)
#define RCC_CFGR REGISTER(0x40023808u)
#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB1ENR REGISTER(0x40023840u)
#define RCC_APB2ENR REGISTER(0x40023844u)
#define GPIO_BASE(port) (0x40020000u + 0x400u * (port))

/* Armv7-M ARM C1.6.5 and C1.8. */
#define DEMCR REGISTER(0xE000EDFCu)
#define DWT_CTRL REGISTER(0xE0001000u)
#define DWT_CYCCNT REGISTER(0xE0001004u)

typedef struct { /* 25.6 */
    volatile uint32_t status;
    volatile uint32_t data;
    volatile uint32_t rate;
    volatile uint32_t control_1;
} usart;

enum { SR_RXNE = 1 << 5, SR_TXE = 1 << 7, CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_UE = 1 << 13 };

typedef struct {
    uint32_t base;
    volatile uint32_t *enable_register;
    uint32_t enable_bit;
    uint32_t clock_hz;
    uint32_t alternate_function; /* datasheet DS10693, table 11 */
} usart_place;

/* The option is a text, "USART2": its last character is the number. gcc computes all of this when it compiles. */
static inline usart_place place(void) {
    static const char name[] = EDGEKIT_PORT_UART;
    switch (name[sizeof name - 2u]) {
    case '1':
        return (usart_place){0x40011000u, &RCC_APB2ENR, 1u << 4, APB2_HZ, 7};
    case '2':
        return (usart_place){0x40004400u, &RCC_APB1ENR, 1u << 17, APB1_HZ, 7};
    case '3':
        return (usart_place){0x40004800u, &RCC_APB1ENR, 1u << 18, APB1_HZ, 7};
    case '4':
        return (usart_place){0x40004C00u, &RCC_APB1ENR, 1u << 19, APB1_HZ, 8};
    case '5':
        return (usart_place){0x40005000u, &RCC_APB1ENR, 1u << 20, APB1_HZ, 8};
    default: /* '6' */
        return (usart_place){0x40011400u, &RCC_APB2ENR, 1u << 5, APB2_HZ, 8};
    }
}

static inline usart *line(void) {
    return (usart *)(uintptr_t)place().base;
}

static void wait_for(const volatile uint32_t *status, uint32_t bits) {
    while ((*status & bits) != bits) {
    }
}

static void start_clock(void) {
    RCC_APB1ENR |= 1u << 28; /* 6.3.13: PWREN */
    (void)RCC_APB1ENR;       /* 6.2, peripheral clock enabling: two cycles pass before the registers answer */
    PWR_CR |= 3u << 14;      /* 5.4.1: VOS scale 1 */

    /* 6.3.1: HSEBYP may change only while the HSE is off. */
    RCC_CR |= EDGEKIT_PORT_HSE_BYPASS ? 1u << 18 : 0u;
    RCC_CR |= 1u << 16; /* HSEON */
    wait_for(&RCC_CR, 1u << 17);

    /* 5.1.3, entering over-drive mode: PLL on, over-drive, flash latency, PLL locked, switch. */
    RCC_PLLCFGR = PLL_M | PLL_N << 6 | 0u << 16 /* P = 2 */ | 1u << 22 /* HSE */ | 8u << 24 /* Q */ | 2u << 28 /* R */;
    RCC_CR |= 1u << 24; /* PLLON */
    PWR_CR |= 1u << 16; /* ODEN */
    wait_for(&PWR_CSR, 1u << 16);
    PWR_CR |= 1u << 17; /* ODSWEN */
    wait_for(&PWR_CSR, 1u << 17);

    /* 3.4.1: 5 wait states at 180 MHz and 2.7 to 3.6 V. 3.4.2: prefetch, instruction and data cache. */
    FLASH_ACR = 5u | 1u << 8 | 1u << 9 | 1u << 10;
    while ((FLASH_ACR & 0xFu) != 5u) {
    }
    RCC_CFGR = (RCC_CFGR & ~(0xFFu << 4 | 0xFFu << 8)) | 5u << 10 /* APB1 / 4 */ | 4u << 13 /* APB2 / 2 */;
    wait_for(&RCC_CR, 1u << 25); /* PLLRDY */
    RCC_CFGR = (RCC_CFGR & ~3u) | 2u;
    while ((RCC_CFGR & (3u << 2)) != 2u << 2) {
    }
}

/* 7.4: alternate function, high speed, pull-up (an open receive line must not look like data). `name`: "PA2". */
static inline void connect_pin(const char *name, uint32_t size, uint32_t function) {
    uint32_t port = (uint32_t)(name[1] - 'A');
    uint32_t pin = (uint32_t)(name[2] - '0');
    if (size == 5u) { /* two digits */
        pin = 10u * pin + (uint32_t)(name[3] - '0');
    }
    volatile uint32_t *gpio = &REGISTER(GPIO_BASE(port));
    volatile uint32_t *alternate = gpio + 8u + pin / 8u; /* AFRL, AFRH */
    uint32_t at = 4u * (pin % 8u);
    RCC_AHB1ENR |= 1u << port; /* 6.3.10 */
    (void)RCC_AHB1ENR;
    *alternate = (*alternate & ~(0xFu << at)) | function << at;
    gpio[2] = (gpio[2] & ~(3u << 2u * pin)) | 2u << 2u * pin; /* OSPEEDR: high */
    gpio[3] = (gpio[3] & ~(3u << 2u * pin)) | 1u << 2u * pin; /* PUPDR: up */
    gpio[0] = (gpio[0] & ~(3u << 2u * pin)) | 2u << 2u * pin; /* MODER: alternate function */
}

void edgekit_port_init(void) {
    static const char tx[] = EDGEKIT_PORT_TX;
    static const char rx[] = EDGEKIT_PORT_RX;
    usart_place where = place();
    start_clock();

    *where.enable_register |= where.enable_bit;
    connect_pin(tx, sizeof tx, where.alternate_function);
    connect_pin(rx, sizeof rx, where.alternate_function);
    line()->rate = (where.clock_hz + EDGEKIT_PORT_BAUD / 2u) / EDGEKIT_PORT_BAUD; /* 25.4.4, 16 samples a bit */
    line()->control_1 = CR1_UE | CR1_TE | CR1_RE;

    DEMCR |= 1u << 24; /* TRCENA: the DWT answers */
    DWT_CYCCNT = 0;
    DWT_CTRL |= 1u; /* CYCCNTENA */
}

int32_t edgekit_port_read(uint8_t *data, uint32_t capacity, bool wait) {
    (void)capacity;
    /* 25.6.1: reading the status and then the data also clears an overrun; the frame that it hit fails its CRC. */
    while ((line()->status & SR_RXNE) == 0u) {
        if (!wait) {
            return 0;
        }
    }
    *data = (uint8_t)line()->data;
    return 1;
}

void edgekit_port_write(const uint8_t *data, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        while ((line()->status & SR_TXE) == 0u) {
        }
        line()->data = data[i];
    }
}

uint64_t edgekit_port_ticks(void) {
    return DWT_CYCCNT;
}

uint8_t edgekit_port_tick_bits(void) {
    return 32;
}
