// Kernels of a cubin, read from its ELF sections: .nv.info.<kernel> holds a list of attributes, each a format byte, an
// attribute byte and two bytes of value or, where the format is 4, of size, and then so many bytes.
#include "stub.h"
#include <elf.h>

enum { SIZED = 4, REQUIRED_THREADS = 0x10, PARAMETER = 0x17, PARAMETER_BYTES = 0x19, EM_CUDA_ = 190 };

static uint32_t word(const uint8_t* at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static void read_attributes(const uint8_t* at, const uint8_t* end, Entry* entry) {
    while (at + 4 <= end) {
        uint8_t format = at[0], attribute = at[1];
        uint16_t value = (uint16_t)(at[2] | at[3] << 8);
        const uint8_t* body = at + 4;
        if (attribute == PARAMETER_BYTES) entry->bytes = value;
        if (attribute == PARAMETER) {
            entry->parameters++;
            // The size of a parameter is in the top 14 bits of the third word.
            if (word(body + 8) >> 18 != 8) entry->parameters = -1000;
        }
        if (attribute == REQUIRED_THREADS) entry->block = word(body);
        at = body + (format == SIZED ? value : 0);
    }
}

bool parse_cubin(const uint8_t* image, Module* module) {
    const Elf64_Ehdr* header = (const Elf64_Ehdr*)image;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_machine != EM_CUDA_) return false;
    const Elf64_Shdr* sections = (const Elf64_Shdr*)(image + header->e_shoff);
    const char* names = (const char*)image + sections[header->e_shstrndx].sh_offset;
    *module = (Module){(int)(header->e_flags & 0xff), 0, calloc(header->e_shnum, sizeof(Entry))};
    for (int i = 0; i < header->e_shnum; i++) {
        const char* name = names + sections[i].sh_name;
        const char prefix[] = ".nv.info.";
        if (strncmp(name, prefix, sizeof prefix - 1)) continue;
        Entry* entry = &module->entries[module->count++];
        snprintf(entry->name, sizeof entry->name, "%s", name + sizeof prefix - 1);
        entry->shared_limit = 48 << 10;
        const uint8_t* start = image + sections[i].sh_offset;
        read_attributes(start, start + sections[i].sh_size, entry);
    }
    return true;
}

void free_module(Module* module) {
    free(module->entries);
    free(module);
}
