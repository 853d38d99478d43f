/*
 * What a child runs between clone(CLONE_VM | CLONE_VFORK) and execve, on arm64 (GNU as).
 *
 * The program's layout and the rules are those of x64.S. In: x0 = the program's header. It does not return.
 */
        .text
        .globl  trampoline
trampoline:
        mov     x19, x0
        add     x20, x0, #16
next:
        ldp     x8, x9, [x20]
        ldr     x0, [x9]
        ldp     x1, x2, [x20, #24]
        ldp     x3, x4, [x20, #40]
        ldr     x5, [x20, #56]
        svc     #0
        str     x0, [x20, #64]
        cmn     x0, #4095               /* unsigned: carry for -4095 .. -1, which are errors */
        b.hs    failed
advance:
        add     x20, x20, #96
        b       next
failed:
        neg     x0, x0
        cmp     x0, #192
        b.hs    fatal
        lsr     x9, x0, #6
        add     x9, x20, x9, lsl #3
        ldr     x9, [x9, #72]
        lsr     x9, x9, x0              /* by x0 modulo 64 */
        tbnz    x9, #0, advance
fatal:
        stp     x20, x0, [x19]
        mov     x0, #127
        mov     x8, #94                 /* exit_group */
        svc     #0
        brk     #0
