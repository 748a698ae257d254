// A picture of any size as what the network reads, bit for bit as the package's own runtime makes it by Pillow.
//
// cv::resize gives other pixels: it does not widen the filter when a picture shrinks (INTER_LINEAR, INTER_CUBIC).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "contract.hpp"

struct Picture {  // uint8[height, width, channels], rows from the top, colours red first
    int width = 0, height = 0, channels = 0;
    std::vector<uint8_t> pixels;
};

namespace framing {

constexpr int BITS = 22;  // of a weight behind the point: 8 bits of pixel and 2 of overshoot are left of 32

struct Filter {
    double (*weight)(double);
    double support;
};

inline Filter filter_named(const std::string& name) {
    if (name == "bilinear") return {[](double x) { return std::max(0.0, 1.0 - std::abs(x)); }, 1.0};
    if (name == "bicubic")
        return {[](double x) {
                    constexpr double a = -0.5;
                    x = std::abs(x);
                    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
                    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
                },
                2.0};
    throw std::runtime_error("interpolation " + name + " is not in this example; it has bilinear and bicubic");
}

struct Window {  // the samples that one sample of the result is made of, and their weights
    int first = 0;
    std::vector<int> weights;
};

inline std::vector<Window> windows(int from, int to, const Filter& filter) {
    const double scale = double(from) / to, wide = std::max(scale, 1.0), support = filter.support * wide;
    std::vector<Window> all(to);
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale, inverse = 1.0 / wide;
        const int first = std::max(0, int(centre - support + 0.5)), last = std::min(from, int(centre + support + 0.5));
        std::vector<double> weights;
        double sum = 0.0;
        for (int k = first; k < last; ++k) {
            weights.push_back(filter.weight((k - centre + 0.5) * inverse));
            sum += weights.back();
        }
        all[i].first = first;
        for (double w : weights) {
            const double whole = (sum != 0.0 ? w / sum : w) * (1 << BITS);
            all[i].weights.push_back(int(whole + (whole < 0 ? -0.5 : 0.5)));
        }
    }
    return all;
}

inline uint8_t clipped(int sum) { return uint8_t(std::clamp(sum >> BITS, 0, 255)); }

// Rows first, then columns, each rounded to 8 bits; a direction in which nothing changes is left out.
inline Picture resized(const Picture& picture, int width, int height, const Filter& filter) {
    const int c = picture.channels;
    Picture wide{width, picture.height, c, {}};
    if (width == picture.width) {
        wide.pixels = picture.pixels;
    } else {
        wide.pixels.resize(size_t(width) * picture.height * c);
        const auto across = windows(picture.width, width, filter);
        for (int y = 0; y < picture.height; ++y)
            for (int x = 0; x < width; ++x)
                for (int k = 0; k < c; ++k) {
                    int sum = 1 << (BITS - 1);
                    const uint8_t* from = &picture.pixels[(size_t(y) * picture.width + across[x].first) * c + k];
                    for (int weight : across[x].weights) sum += weight * *from, from += c;
                    wide.pixels[(size_t(y) * width + x) * c + k] = clipped(sum);
                }
    }
    if (height == picture.height) return wide;
    Picture out{width, height, c, std::vector<uint8_t>(size_t(width) * height * c)};
    const auto down = windows(picture.height, height, filter);
    const size_t row = size_t(width) * c;
    for (int y = 0; y < height; ++y)
        for (size_t x = 0; x < row; ++x) {
            int sum = 1 << (BITS - 1);
            const uint8_t* from = &wide.pixels[size_t(down[y].first) * row + x];
            for (int weight : down[y].weights) sum += weight * *from, from += row;
            out.pixels[size_t(y) * row + x] = clipped(sum);
        }
    return out;
}

inline int rounded(double value) { return int(std::nearbyint(value)); }  // halves to even

inline void resized_size(const Contract& c, int width, int height, int& new_width, int& new_height) {
    if (c.resize == "squash") {
        new_width = c.box_width, new_height = c.box_height;
    } else if (c.resize == "crop" && c.box_width == c.box_height) {
        const double side = c.box_width;
        new_width = width <= height ? int(side) : int(side * width / height);
        new_height = width <= height ? int(side * height / width) : int(side);
    } else if (c.resize == "crop" || c.resize == "letterbox") {
        const double across = double(width) / c.box_width, down = double(height) / c.box_height;
        const double ratio = c.resize == "crop" ? std::min(across, down) : std::max(across, down);
        new_width = std::max(rounded(width / ratio), 1), new_height = std::max(rounded(height / ratio), 1);
    } else {
        throw std::runtime_error("resize " + c.resize + " is not known");
    }
}

inline int before(int room, bool floored) {
    return room >= 0 ? room / 2 : floored ? -(-room / 2) : -rounded(-room / 2.0);
}

inline Picture grey(const Picture& picture) {
    Picture out{picture.width, picture.height, 1, std::vector<uint8_t>(picture.pixels.size() / 3)};
    for (size_t i = 0; i < out.pixels.size(); ++i) {
        const uint8_t* p = &picture.pixels[3 * i];
        out.pixels[i] = uint8_t((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);  // ITU-R 601
    }
    return out;
}

}  // namespace framing

// uint8[height, width, channels] of the contract, of a picture of one channel or three.
inline std::vector<uint8_t> framed(const Picture& given, const Contract& c) {
    using namespace framing;
    Picture picture = given;
    if (given.channels == 3 && c.channels == 1) picture = grey(given);
    if (given.channels == 1 && c.channels == 3) {
        picture = {given.width, given.height, 3, {}};
        for (uint8_t p : given.pixels) picture.pixels.insert(picture.pixels.end(), 3, p);
    }
    int width = 0, height = 0;
    resized_size(c, picture.width, picture.height, width, height);
    if (int64_t(width) * height > 89478485) throw std::runtime_error("the picture is too long for its width");
    picture = resized(picture, width, height, filter_named(c.interpolation));
    const int left = before(c.width - width, c.floored), top = before(c.height - height, c.floored);
    std::vector<uint8_t> out(size_t(c.height) * c.width * c.channels);
    for (int y = 0; y < c.height; ++y)
        for (int x = 0; x < c.width; ++x)
            for (int k = 0; k < c.channels; ++k) {
                const int px = x - left, py = y - top;
                const bool inside = px >= 0 && px < width && py >= 0 && py < height;
                const uint8_t value = inside ? picture.pixels[(size_t(py) * width + px) * c.channels + k] : c.fill[k];
                const int to = c.bgr && c.channels == 3 ? 2 - k : k;
                out[(size_t(y) * c.width + x) * c.channels + to] = value;
            }
    return out;
}
