/*
 * What a child runs between clone(CLONE_VM | CLONE_VFORK) and execve, on x86-64 (GNU as).
 *
 * The child shares the parent's memory while the parent's thread stands still, so it touches nothing but its program:
 * no stack after entry, no thread-local storage, no libc. In: rdi = the program's header. It does not return.
 *
 *   header  +0  address of the record that failed      +8  its errno             (both 0 at the start)
 *   record  +0  system call number                     +8  address of argument 0
 *          +16  argument 0, if it is a constant        +24 .. +56  arguments 1 to 5
 *          +64  the call's result                      +72 .. +88  errnos to tolerate, one bit each (0 to 191)
 *
 * The records follow the header and each other; argument 0 is read through its address, so that it can be the result of
 * an earlier record (a duplicated descriptor). The last record must be an execve that tolerates nothing.
 */
        .text
        .globl  trampoline
trampoline:
        mov     %rdi, %r12
        lea     16(%rdi), %rbx
next:
        mov     (%rbx), %rax
        mov     8(%rbx), %rdi
        mov     (%rdi), %rdi
        mov     24(%rbx), %rsi
        mov     32(%rbx), %rdx
        mov     40(%rbx), %r10
        mov     48(%rbx), %r8
        mov     56(%rbx), %r9
        syscall
        mov     %rax, 64(%rbx)
        cmp     $-4095, %rax            /* unsigned: -4095 .. -1 are errors */
        jae     failed
advance:
        add     $96, %rbx
        jmp     next
failed:
        neg     %rax
        cmp     $192, %rax
        jae     fatal
        bt      %rax, 72(%rbx)
        jc      advance
fatal:
        mov     %rbx, (%r12)
        mov     %rax, 8(%r12)
        mov     $127, %edi
        mov     $231, %eax              /* exit_group */
        syscall
        ud2
